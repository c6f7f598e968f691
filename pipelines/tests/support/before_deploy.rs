//! What becomes of the tasks of `before_deploy` in the stories.

use super::Stage;
use roadstead_pipelines::fact::Change;
use roadstead_pipelines::observation::StoppedTask;
use roadstead_pipelines::outcome::{BEFORE_DEPLOY_TIMED_OUT, judge_before_deploy};
use std::collections::BTreeMap;

impl Stage {
    /// It ends by itself, with this exit status.
    pub fn before_deploy_ends(&mut self, place: &str, code: i64) {
        let reason = "Essential container in task exited";
        self.one_off_ends(place, "EssentialContainerExited", reason, code);
    }

    /// It ends because it was stopped.
    pub fn before_deploy_stops(&mut self, place: &str) {
        self.one_off_ends(place, "UserInitiated", BEFORE_DEPLOY_TIMED_OUT, 143);
    }

    fn one_off_ends(&mut self, place: &str, stop_code: &str, reason: &str, code: i64) {
        self.say(&format!("before_deploy ends in {place}"));
        let place = Self::place(place);
        let at_it = self.world.live_in(&place).find(|d| d.state.occupies());
        let deployment = at_it.unwrap().id.clone();
        let task = StoppedTask {
            task: format!("arn/task/before-{}", deployment.number()),
            started_by: String::new(),
            stop_code: stop_code.into(),
            reason: reason.into(),
            exit_codes: BTreeMap::from([("app".to_owned(), code)]),
            container_reason: String::new(),
            last_lines: vec!["column `price` is there already".into()],
            stopped_at: Some(self.now),
        };
        let fact = judge_before_deploy(&task, "app");
        self.change(&[Change::Deployment { deployment, fact }]);
        self.settle();
    }
}
