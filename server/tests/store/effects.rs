//! Which effects are leased, of all that are due.

use crate::databases::{self, on_both_databases};
use crate::story::Story;
use jiff::SignedDuration;
use roadstead_pipelines::effect::{Counterpart, Effect};
use roadstead_pipelines::id::{DeploymentId, ProjectName, RunId};
use roadstead_server::store::Wanted;

on_both_databases!(what_is_wanted_is_leased_and_nothing_else,);

async fn what_is_wanted_is_leased_and_nothing_else(url: &str) {
    let story = Story::begin(url).await;
    let blog = ProjectName::parse("blog").unwrap();
    let (address, key) = ("/srv/blog.git".to_owned(), "a webhook's key".to_owned());
    let made = story
        .store
        .upsert_project(blog.clone(), address, key, story.now);
    made.await.unwrap();
    for project in [&story.shop, &blog] {
        let run = RunId::new(project, 1);
        let effects = vec![
            Effect::ReadSources { run: run.clone() },
            Effect::PrepareRegistry { run: run.clone() },
            Effect::ConfirmImages { run },
            Effect::UpdateService {
                deployment: DeploymentId::new(project, 1),
            },
        ];
        let world = story.store.load_world(project).await.unwrap();
        let committed = story.store.commit(
            project,
            world.generations,
            vec![],
            effects,
            "test",
            story.now,
        );
        committed.await.unwrap();
    }
    let until = story.now + SignedDuration::from_secs(60);
    let lease = async |limit, of: &[Counterpart], not_of: &[&ProjectName]| {
        let wanted = Wanted {
            limit,
            of: of.to_vec(),
            not_of: not_of.iter().map(|it| (*it).clone()).collect(),
        };
        let leased = story.store.lease_effects(wanted, story.now, until).await;
        let leased = leased.unwrap().into_iter();
        leased.map(|row| row.key).collect::<Vec<_>>()
    };
    use Counterpart::{Ecs, Forge, Registry};
    assert_eq!(
        lease(9, &[Ecs], &[&story.shop]).await,
        ["update_service:blog.d1"]
    );
    assert_eq!(lease(9, &[Ecs], &[&story.shop]).await, [""; 0]);
    assert_eq!(lease(9, &[Forge], &[&blog, &story.shop]).await, [""; 0]);
    assert_eq!(
        lease(9, &[Forge], &[&blog]).await,
        ["confirm_images:shop.1", "read_sources:shop.1"]
    );
    assert_eq!(lease(1, &[Forge], &[]).await, ["confirm_images:blog.1"]);
    assert_eq!(
        lease(9, &[Registry, Ecs], &[]).await,
        [
            "prepare_registry:blog.1",
            "prepare_registry:shop.1",
            "update_service:shop.d1"
        ]
    );
    assert_eq!(
        lease(9, &Counterpart::ALL, &[]).await,
        ["read_sources:blog.1"]
    );
}
