//! Runs that people start.

use super::Stage;
use roadstead_pipelines::id::RunId;
use roadstead_pipelines::spec::InputValues;
use roadstead_pipelines::started_by::StartedBy;

impl Stage {
    /// A person starts a run of the commit that `pushed` was of.
    pub fn start(&mut self, pushed: &RunId) -> RunId {
        let run = self.push();
        let asked = self.world.runs.get_mut(&run).unwrap();
        asked.commit = Self::commit_of(pushed.number());
        asked.started_by = StartedBy::Manual {
            by: "ada".into(),
            inputs: InputValues::new(),
            commit_named: true,
        };
        run
    }
}
