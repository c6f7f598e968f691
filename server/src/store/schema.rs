//! Tables as both databases have them. A test compares this with what the databases report.

diesel::table! {
    projects (name) {
        name -> Text,
        repository -> Text,
        webhook_secret -> Text,
        created_at -> BigInt,
        heads_compared_at -> Nullable<BigInt>,
        told_forge -> Nullable<Text>,
        default_branch -> Nullable<Text>,
    }
}

diesel::table! {
    branch_heads (project, git_ref) {
        project -> Text,
        git_ref -> Text,
        commit_sha -> Text,
    }
}

diesel::table! {
    branch_files (project, git_ref) {
        project -> Text,
        git_ref -> Text,
        run_number -> BigInt,
        started_by -> Text,
        schedules -> Text,
    }
}

diesel::table! {
    schedule_moments (project, git_ref, schedule, moment) {
        project -> Text,
        git_ref -> Text,
        schedule -> Text,
        moment -> BigInt,
        run -> Nullable<Text>,
    }
}

diesel::table! {
    run_keys (project, key) {
        project -> Text,
        key -> Text,
        run -> Text,
    }
}

diesel::table! {
    commit_statuses (project, commit_sha, git_ref) {
        project -> Text,
        commit_sha -> Text,
        git_ref -> Text,
        run -> Text,
        telling -> Text,
        due_at -> Nullable<BigInt>,
        leased_by -> Nullable<Text>,
        leased_until -> Nullable<BigInt>,
    }
}

diesel::table! {
    lanes (project) {
        project -> Text,
        generation -> BigInt,
        next_run -> BigInt,
        next_release -> BigInt,
        next_deployment -> BigInt,
        pipeline -> Nullable<Text>,
    }
}

diesel::table! {
    runs (id) {
        id -> Text,
        project -> Text,
        number -> BigInt,
        commit_sha -> Text,
        git_ref -> Text,
        message -> Text,
        author -> Text,
        created_at -> BigInt,
        ended_at -> Nullable<BigInt>,
        word -> Text,
        state -> Text,
        pipeline -> Nullable<Text>,
        variables -> Text,
        repositories -> Text,
        authorship -> Nullable<Text>,
        decided -> Text,
    }
}

diesel::table! {
    pending_jobs (run, job) {
        run -> Text,
        job -> Text,
        created_at -> BigInt,
        labels -> Text,
    }
}

diesel::table! {
    group_places (run, job) {
        run -> Text,
        job -> Text,
        project -> Text,
        job_group -> Text,
        place -> BigInt,
        most -> BigInt,
        holds -> Bool,
    }
}

diesel::table! {
    deliveries (id) {
        id -> BigInt,
        project -> Text,
        forge -> Text,
        delivery_id -> Text,
        semantic_key -> Nullable<Text>,
        event -> Text,
        received_at -> BigInt,
        body -> Text,
        decision -> Text,
        reason -> Text,
        run -> Nullable<Text>,
        redelivery_of -> Nullable<BigInt>,
        packed_body -> Nullable<Binary>,
    }
}

diesel::table! {
    attempts (id) {
        id -> Text,
        run -> Text,
        number -> BigInt,
        runner -> Text,
        token_hash -> Text,
        claimed_at -> BigInt,
        accepted_at -> Nullable<BigInt>,
        lease_until -> BigInt,
        ended_at -> Nullable<BigInt>,
        outcome -> Nullable<Text>,
        job -> Text,
    }
}

diesel::table! {
    steps (attempt, name) {
        attempt -> Text,
        name -> Text,
        position -> BigInt,
        state -> Text,
        started_at -> Nullable<BigInt>,
        ended_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    releases (id) {
        id -> Text,
        project -> Text,
        number -> BigInt,
        run -> Nullable<Text>,
        commit_sha -> Text,
        message -> Text,
        author -> Text,
        images -> Text,
        variables -> Text,
        created_at -> BigInt,
        authorship -> Nullable<Text>,
        descendants -> Text,
        task_definitions -> Text,
    }
}

diesel::table! {
    deployments (id) {
        id -> Text,
        project -> Text,
        number -> BigInt,
        environment -> Text,
        service -> Text,
        release -> Text,
        kind -> Text,
        asked_by -> Text,
        created_at -> BigInt,
        ended_at -> Nullable<BigInt>,
        word -> Text,
        state -> Text,
    }
}

diesel::table! {
    places (project, environment, service) {
        project -> Text,
        environment -> Text,
        service -> Text,
        hold -> Nullable<Text>,
        newest_tried -> Nullable<Text>,
        status -> Nullable<Text>,
    }
}

diesel::table! {
    approvals (project, environment, service, release, by_whom) {
        project -> Text,
        environment -> Text,
        service -> Text,
        release -> Text,
        by_whom -> Text,
        role -> Text,
        approved_at -> BigInt,
    }
}

diesel::table! {
    effects (key) {
        key -> Text,
        project -> Text,
        subject -> Text,
        effect -> Text,
        state -> Text,
        attempts -> BigInt,
        not_before -> BigInt,
        leased_until -> Nullable<BigInt>,
        last_error -> Nullable<Text>,
        created_at -> BigInt,
        finished_at -> Nullable<BigInt>,
        leased_by -> Nullable<Text>,
        counterpart -> Text,
    }
}

diesel::table! {
    leases (name) {
        name -> Text,
        holder -> Text,
        held_until -> BigInt,
    }
}

diesel::table! {
    events (sequence) {
        sequence -> BigInt,
        at -> BigInt,
        project -> Nullable<Text>,
        subject -> Text,
        actor -> Text,
        what -> Text,
        detail -> Text,
        position -> BigInt,
        reason -> Text,
        before -> Nullable<Text>,
        after -> Nullable<Text>,
        hash -> Text,
    }
}

diesel::table! {
    audit_heads (chain) {
        chain -> Text,
        length -> BigInt,
        hash -> Text,
    }
}

diesel::table! {
    users (name) {
        name -> Text,
        password_hash -> Text,
        role -> Text,
        created_at -> BigInt,
        disabled_at -> Nullable<BigInt>,
        last_sign_in_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    user_emails (email) {
        email -> Text,
        user_name -> Text,
    }
}

diesel::table! {
    sessions (token_hash) {
        token_hash -> Text,
        user_name -> Text,
        created_at -> BigInt,
        expires_at -> BigInt,
    }
}

diesel::table! {
    api_tokens (id) {
        id -> Text,
        token_hash -> Text,
        name -> Text,
        role -> Text,
        created_by -> Text,
        created_at -> BigInt,
        expires_at -> Nullable<BigInt>,
        last_used_at -> Nullable<BigInt>,
        revoked_at -> Nullable<BigInt>,
        made_with -> Nullable<Text>,
    }
}

diesel::table! {
    runners (id) {
        id -> Text,
        credential_hash -> Text,
        labels -> Text,
        registered_at -> BigInt,
        last_seen_at -> BigInt,
        disk_free_bytes -> Nullable<BigInt>,
        free_slots -> BigInt,
        drain -> Bool,
        left_at -> Nullable<BigInt>,
        left_for_good -> Bool,
    }
}

diesel::table! {
    secrets (project, environment, name) {
        project -> Text,
        environment -> Text,
        name -> Text,
        branches -> Text,
        version -> BigInt,
        key_id -> Text,
        data_key -> Text,
        value -> Text,
        set_by -> Text,
        set_at -> BigInt,
    }
}

diesel::table! {
    artifacts (run, attempt, step, name) {
        run -> Text,
        attempt -> BigInt,
        step -> Text,
        name -> Text,
        length -> BigInt,
        sha256 -> Text,
        stored_at -> BigInt,
    }
}

diesel::table! {
    caches (id) {
        id -> Text,
        project -> Text,
        scope -> Text,
        name -> Text,
        kind -> Text,
        key -> Text,
        length -> BigInt,
        sha256 -> Text,
        state -> Text,
        run -> Text,
        stored_at -> BigInt,
        used_at -> BigInt,
    }
}

diesel::table! {
    test_reports (run, attempt, step) {
        run -> Text,
        attempt -> BigInt,
        step -> Text,
        tests -> BigInt,
        failed -> BigInt,
        skipped -> BigInt,
        unread -> BigInt,
        cases -> Text,
    }
}

diesel::table! {
    removed_logs (run) {
        run -> Text,
        removed_at -> BigInt,
    }
}

diesel::allow_tables_to_appear_in_same_query!(
    projects,
    branch_heads,
    branch_files,
    schedule_moments,
    run_keys,
    commit_statuses,
    lanes,
    runs,
    pending_jobs,
    group_places,
    deliveries,
    attempts,
    steps,
    releases,
    deployments,
    places,
    approvals,
    effects,
    events,
    audit_heads,
    artifacts,
    caches,
    test_reports,
    removed_logs,
    secrets,
    users,
    user_emails,
    sessions,
    api_tokens,
    runners
);
