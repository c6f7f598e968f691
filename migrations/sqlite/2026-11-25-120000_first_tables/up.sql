-- Times are whole microseconds since 1970; states are a word beside the JSON of the core's type.
CREATE TABLE projects (
    name TEXT NOT NULL PRIMARY KEY,
    repository TEXT NOT NULL,
    webhook_secret TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

-- One row per project: whoever changes what a decision may rest on moves its generation on first.
CREATE TABLE lanes (
    project TEXT NOT NULL PRIMARY KEY REFERENCES projects (name),
    generation BIGINT NOT NULL,
    next_run BIGINT NOT NULL,
    next_release BIGINT NOT NULL,
    next_deployment BIGINT NOT NULL,
    pipeline TEXT
);

CREATE TABLE runs (
    id TEXT NOT NULL PRIMARY KEY,
    project TEXT NOT NULL REFERENCES projects (name),
    number BIGINT NOT NULL,
    commit_sha TEXT NOT NULL,
    git_ref TEXT NOT NULL,
    message TEXT NOT NULL,
    author TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    ended_at BIGINT,
    word TEXT NOT NULL CHECK (word IN ('fetching', 'preparing', 'queued', 'building', 'cancelling',
        'confirming', 'confirmed', 'succeeded', 'skipped', 'failed', 'timed_out', 'cancelled')),
    state TEXT NOT NULL,
    pipeline TEXT,
    variables TEXT NOT NULL,
    repositories TEXT NOT NULL,
    UNIQUE (project, number)
);
CREATE INDEX runs_live ON runs (project) WHERE ended_at IS NULL;
CREATE INDEX runs_queued ON runs (created_at, id) WHERE word = 'queued';
CREATE INDEX runs_by_ref ON runs (project, git_ref, number);

CREATE TABLE deliveries (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    project TEXT NOT NULL REFERENCES projects (name),
    forge TEXT NOT NULL,
    delivery_id TEXT NOT NULL,
    semantic_key TEXT UNIQUE,
    event TEXT NOT NULL,
    received_at BIGINT NOT NULL,
    body TEXT NOT NULL,
    decision TEXT NOT NULL CHECK (decision IN ('built', 'ignored', 'duplicate')),
    reason TEXT NOT NULL,
    run TEXT REFERENCES runs (id),
    redelivery_of BIGINT REFERENCES deliveries (id),
    UNIQUE (project, delivery_id)
);
CREATE INDEX deliveries_by_project ON deliveries (project, id);

CREATE TABLE attempts (
    id TEXT NOT NULL PRIMARY KEY,
    run TEXT NOT NULL REFERENCES runs (id),
    number BIGINT NOT NULL,
    runner TEXT NOT NULL,
    token_hash TEXT NOT NULL UNIQUE,
    claimed_at BIGINT NOT NULL,
    accepted_at BIGINT,
    lease_until BIGINT NOT NULL,
    ended_at BIGINT,
    outcome TEXT,
    UNIQUE (run, number)
);
CREATE INDEX attempts_live ON attempts (lease_until) WHERE ended_at IS NULL;
CREATE INDEX attempts_of_runner ON attempts (runner) WHERE ended_at IS NULL;

CREATE TABLE steps (
    attempt TEXT NOT NULL REFERENCES attempts (id),
    name TEXT NOT NULL,
    position BIGINT NOT NULL,
    state TEXT NOT NULL,
    started_at BIGINT,
    ended_at BIGINT,
    PRIMARY KEY (attempt, name)
);

CREATE TABLE releases (
    id TEXT NOT NULL PRIMARY KEY,
    project TEXT NOT NULL REFERENCES projects (name),
    number BIGINT NOT NULL,
    run TEXT REFERENCES runs (id),
    commit_sha TEXT NOT NULL,
    message TEXT NOT NULL,
    author TEXT NOT NULL,
    images TEXT NOT NULL,
    variables TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (project, number)
);

CREATE TABLE deployments (
    id TEXT NOT NULL PRIMARY KEY,
    project TEXT NOT NULL REFERENCES projects (name),
    number BIGINT NOT NULL,
    environment TEXT NOT NULL,
    service TEXT NOT NULL,
    release TEXT NOT NULL REFERENCES releases (id),
    kind TEXT NOT NULL,
    asked_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    ended_at BIGINT,
    word TEXT NOT NULL CHECK (word IN ('queued', 'rolling_out', 'verifying', 'rolling_back',
        'deployed', 'failed', 'rolled_back', 'rollback_failed', 'superseded', 'cancelled',
        'timed_out')),
    state TEXT NOT NULL,
    UNIQUE (project, number)
);
CREATE INDEX deployments_live ON deployments (project) WHERE ended_at IS NULL;
CREATE INDEX deployments_of_place ON deployments (project, environment, service, number);
CREATE INDEX deployments_verified ON deployments (project, environment, service, ended_at)
    WHERE word = 'deployed';
CREATE INDEX deployments_of_release ON deployments (release, number);

CREATE TABLE places (
    project TEXT NOT NULL REFERENCES projects (name),
    environment TEXT NOT NULL,
    service TEXT NOT NULL,
    hold TEXT,
    newest_tried TEXT REFERENCES releases (id),
    status TEXT,
    PRIMARY KEY (project, environment, service)
);

CREATE TABLE approvals (
    project TEXT NOT NULL REFERENCES projects (name),
    environment TEXT NOT NULL,
    service TEXT NOT NULL,
    release TEXT NOT NULL REFERENCES releases (id),
    by_whom TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('viewer', 'deployer', 'admin')),
    approved_at BIGINT NOT NULL,
    PRIMARY KEY (project, environment, service, release, by_whom)
);

CREATE TABLE effects (
    key TEXT NOT NULL PRIMARY KEY,
    project TEXT NOT NULL REFERENCES projects (name),
    subject TEXT NOT NULL,
    effect TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'leased', 'done', 'failed')),
    attempts BIGINT NOT NULL,
    not_before BIGINT NOT NULL,
    leased_until BIGINT,
    last_error TEXT,
    created_at BIGINT NOT NULL,
    finished_at BIGINT
);
CREATE INDEX effects_open ON effects (not_before) WHERE finished_at IS NULL;
CREATE INDEX effects_of_subject ON effects (subject);

CREATE TABLE events (
    sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at BIGINT NOT NULL,
    project TEXT REFERENCES projects (name),
    subject TEXT NOT NULL,
    actor TEXT NOT NULL,
    what TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX events_of_project ON events (project, sequence);
CREATE INDEX events_of_subject ON events (subject, sequence);

CREATE TABLE users (
    name TEXT NOT NULL PRIMARY KEY,
    password_hash TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('viewer', 'deployer', 'admin')),
    created_at BIGINT NOT NULL
);

CREATE TABLE sessions (
    token_hash TEXT NOT NULL PRIMARY KEY,
    user_name TEXT NOT NULL REFERENCES users (name),
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

CREATE TABLE api_tokens (
    id TEXT NOT NULL PRIMARY KEY,
    token_hash TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('viewer', 'deployer', 'admin')),
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    last_used_at BIGINT,
    revoked_at BIGINT
);

CREATE TABLE runners (
    id TEXT NOT NULL PRIMARY KEY,
    credential_hash TEXT NOT NULL UNIQUE,
    labels TEXT NOT NULL,
    registered_at BIGINT NOT NULL,
    last_seen_at BIGINT NOT NULL,
    disk_free_bytes BIGINT,
    free_slots BIGINT NOT NULL,
    drain BOOLEAN NOT NULL
);
