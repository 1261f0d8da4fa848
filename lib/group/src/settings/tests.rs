// SPDX-License-Identifier: MIT OR Apache-2.0
//! What needs the engine's inside; the rest is in the crate's `tests/`.

use tokio::time::Instant;

use super::change::Proposal;
use super::*;

struct Anything;

impl Policy for Anything {
    fn judge(&self, _: &Origin, _: &Change, _: &State) -> Result<(), String> {
        Ok(())
    }
}

struct Nobody;

impl Transport for Nobody {
    async fn call(&self, _: NodeId, _: Vec<u8>) -> Result<Vec<u8>, Unreachable> {
        Err(Unreachable("nobody is there".to_owned()))
    }
}

const OWN: NodeId = NodeId([1; 16]);

async fn open(folder: &Path) -> Settings {
    open_with(folder, true).await
}

async fn open_with(folder: &Path, inline_io: bool) -> Settings {
    let options =
        Options { inline_io, keep: 40, ..Options::new(Arc::new(Anything), Arc::new(|| 1)) };
    Settings::open(folder, OWN, Nobody, options).await.unwrap()
}

async fn set(settings: &Settings, key: &str) -> Result<Version, SettingsError> {
    settings.set(key, vec![1], Expect::Any, Origin::program(OWN.into())).await
}

async fn until(mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < limit, "it does not come to pass");
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_a_later_version_stops_it_and_is_not_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let settings = open(folder.path()).await;
    settings.begin([OWN]).await.unwrap();
    set(&settings, "before").await.unwrap();
    let engine = settings.inner.engine().unwrap();
    let who = Origin::program(OWN.into());
    let proposal = Proposal { id: [1; 16], who, at: 1, kind: 999, body: vec![] };
    let written = engine.raft.client_write(proposal).await;
    assert!(written.is_err());
    drop(engine);
    let too_old = || matches!(settings.status().health, Health::TooOld(_));
    until(too_old).await;
    let Health::TooOld(why) = settings.status().health else { panic!() };
    assert!(why.contains("kind 999") && why.contains("install"), "{why}");
    assert!(set(&settings, "after").await.is_err());
    assert!(settings.get("before").is_some() && settings.get("after").is_none());
    settings.close().await;
    // The new version finds all as it was, and whoever has the old one still is told the same.
    let settings = open(folder.path()).await;
    until(|| matches!(settings.status().health, Health::TooOld(_))).await;
    assert!(settings.get("before").is_some());
}

#[tokio::test(start_paused = true)]
async fn all_is_as_it_was_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let settings = open(folder.path()).await;
    settings.begin([OWN]).await.unwrap();
    let mut versions = vec![];
    for n in 0..100 {
        versions.push(set(&settings, &format!("key {n}")).await.unwrap());
    }
    settings.close().await;
    let settings = open(folder.path()).await;
    settings.begin([OWN]).await.unwrap();
    until(|| settings.read(|state| state.keys().count()) == 100).await;
    for (n, version) in versions.iter().enumerate() {
        assert_eq!(settings.get(&format!("key {n}")).unwrap().version, *version);
    }
    set(&settings, "more").await.unwrap();
}

#[tokio::test]
async fn it_runs_on_threads_that_wait_for_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let settings = open_with(folder.path(), false).await;
    settings.begin([OWN]).await.unwrap();
    for n in 0..50 {
        set(&settings, &format!("key {n}")).await.unwrap();
    }
    settings.close().await;
    let settings = open_with(folder.path(), false).await;
    until(|| settings.get("key 49").is_some()).await;
    settings.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_that_nobody_can_confirm_ends_in_time_and_too_many_are_turned_down() {
    let folder = tempfile::tempdir().unwrap();
    let settings = open(folder.path()).await;
    let began = Instant::now();
    assert!(matches!(set(&settings, "key").await, Err(SettingsError::NoMajority)));
    assert!(began.elapsed() <= settings.inner.options.patience);
    let many: Vec<_> = (0..=MAX_PROPOSALS)
        .map(|_| {
            let settings = settings.clone();
            tokio::spawn(async move { set(&settings, "key").await })
        })
        .collect();
    let mut busy = 0;
    for one in many {
        busy += usize::from(matches!(one.await.unwrap(), Err(SettingsError::Busy)));
    }
    assert_eq!(busy, 1);
}
