//! How a derived topic begins and ends: what an attachment must be, its folder, and where it starts.
//!
//! ```text
//! attach:  rules ──> places in the source ──> folder with a snapshot for each partition, durable ──> catalogue names it ──> runners
//! detach:  catalogue forgets it ──> runners end ──> folder removed: position and state are gone
//! ```
//!
//! A folder that no attachment of the catalogue has is removed at the next start; one that is missing is a loss, and is said.

use super::{
    Derivation, ID_BITS, PRODUCERS_PER_TARGET_MAX, RETRIES_DEFAULT, RETRIES_MAX, STATE_BYTES_ALL_MAX, STATE_BYTES_MAX, TARGETS_MAX,
    store::Store,
};
use crate::{
    catalogue::{Catalogue, StoredAttachment},
    consume,
    data_dir::DataDir,
    engine::Engine,
    error::{EngineError, Purpose, value_of, within},
    folders::exists,
    partition::Partition,
    topic::Topic,
};
use futures_util::future::join_all;
use millpond_log::Disk;
use millpond_plugin::{Module, Target, World};
use millpond_protocol::message::{AttachPoint, AttachTransform, DeriveInto, OnError, Position};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, sync::Arc};

/// What the catalogue says of an attachment that derives topics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredDerive {
    /// Its own: the name of its folder, and a part of its producers' ids.
    pub(crate) id: u64,
    pub(crate) targets: Vec<String>,
    /// All topics that its dead letters were told to go to: what is on its way to one goes there, whatever is said since. An output that was
    /// committed names its topic by its place among the targets and, behind them, these; so none of them changes its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    letters: Vec<String>,
    /// For each partition; 0 is none.
    #[serde(default)]
    pub(crate) state_bytes: u64,
    #[serde(default = "retries_default")]
    pub(crate) retries: u32,
}

fn retries_default() -> u32 {
    RETRIES_DEFAULT
}

impl StoredDerive {
    /// As it is asked for.
    pub(crate) fn new(id: u64, into: &DeriveInto, on_error: &OnError) -> StoredDerive {
        let letters = on_error.dead_letter_topic().map(str::to_owned).into_iter().collect();
        let retries = into.retries.unwrap_or(RETRIES_DEFAULT);
        StoredDerive { id, targets: into.targets.clone(), letters, state_bytes: into.state_bytes, retries }
    }

    /// All topics that its dead letters were told to go to, where this is what holds now; an older broker did not note them.
    pub(crate) fn letters(&self, on_error: &OnError) -> Vec<String> {
        let mut letters = self.letters.clone();
        letters.extend(on_error.dead_letter_topic().filter(|now| !letters.iter().any(|one| one == now)).map(str::to_owned));
        letters
    }

    /// What becomes of failed records is another thing from now on.
    pub(crate) fn note_letters(&mut self, before: &OnError, after: &OnError) {
        self.letters = self.letters(before);
        self.letters = self.letters(after);
    }

    /// The targets as a module knows them.
    pub(crate) fn targets(&self, partitions: impl Fn(&str) -> u32) -> Vec<Target> {
        let target = |name: &String| Target { name: name.clone(), partition_count: partitions(name) };
        self.targets.iter().map(target).collect()
    }
}

impl Engine {
    /// Holds an attachment that is as [`check_request`] wants it against the rules of the topics, and makes its folder. The catalogue does not name
    /// it yet.
    pub(crate) async fn prepare_derivation(
        &self,
        catalogue: &Catalogue,
        request: &AttachTransform,
        topic: &Topic,
    ) -> Result<(StoredDerive, Arc<Derivation>), EngineError> {
        let Some(into) = &request.derive else { return no_targets() };
        for target in into.targets.iter().map(String::as_str).chain(request.on_error.dead_letter_topic()) {
            self.find_topic(target)?;
        }
        check_targets(catalogue, &request.topic, into, request.on_error.dead_letter_topic())?;
        check_bounds(catalogue, topic.partition_count(), into, None)?;
        if let Some(partition) = into.offsets.keys().next_back() {
            topic.partition(*partition, Purpose::Read)?;
        }
        let start = |partition: &Partition| into.offsets.get(&partition.number()).map_or(into.start, |offset| Position::Offset(*offset));
        let places = topic.partitions.iter().map(|partition| consume::resolve(&self.services, partition, start(partition), Purpose::Read));
        let places = join_all(places).await.into_iter().map(|found| found.map(|found| found.offset));
        let places = places.collect::<Result<Vec<_>, _>>()?;
        let id = new_id(catalogue);
        let (services, data, offsets) = (Arc::clone(&self.services), self.data.clone(), places.clone());
        self.services.io.run(move || make_folder(&*services.disk, &data, id, &offsets)).await??;
        let stored = StoredDerive::new(id, into, &request.on_error);
        let targets = stored.targets(|name| catalogue.topics.get(name).map_or(0, |topic| topic.partitions));
        Ok((stored, Derivation::new(id, targets, places.into_iter().map(Some))))
    }

    /// Lets what writes to a topic by itself try again.
    pub(crate) fn wake_writers(&self, catalogue: &Catalogue, topic: &str) {
        let writes_to = |(_, attachment, derive): &(&str, &StoredAttachment, &StoredDerive)| {
            derive.targets.iter().any(|target| target == topic) || attachment.on_error.dead_letter_topic() == Some(topic)
        };
        for source in catalogue.derivations().filter(writes_to).filter_map(|(from, ..)| self.find_topic(from).ok()) {
            let runtime = source.runtime();
            runtime.derived.iter().filter_map(|attachment| attachment.lasting.derivation.as_ref()).for_each(|derivation| derivation.wake());
        }
    }

    /// Removes the folders of attachments that are gone, when there is time.
    pub(crate) fn remove_derivations(&self, ids: impl IntoIterator<Item = u64>) {
        for id in ids {
            let (services, folder) = (Arc::clone(&self.services), self.data.derivation(id));
            self.services.background.spawn(move || {
                if let Err(error) = services.disk.remove_dir_all(&folder) {
                    tracing::warn!(folder = %folder.display(), %error, "what is left of a derived topic is removed at the next start");
                }
            });
        }
    }
}

/// Whether a module may run at a place, with this state.
pub(crate) fn check_state(module: &Module, name: &str, on: AttachPoint, state_bytes: u64) -> Result<(), EngineError> {
    match (module.has_state(), on) {
        (true, AttachPoint::Derive) if state_bytes == 0 => Err(EngineError::AttachRefused {
            reason: format!("the module `{name}` keeps state, and it is granted none"),
            hint: "grant it so many bytes for each partition: `--state-bytes BYTES`",
        }),
        (true, AttachPoint::Produce | AttachPoint::Partition | AttachPoint::Fetch) => Err(EngineError::AttachRefused {
            reason: format!("the module `{name}` keeps state, which there is for derived topics alone"),
            hint: "attach it with `--into TOPIC --state-bytes BYTES`",
        }),
        (false, AttachPoint::Derive) if state_bytes > 0 => Err(EngineError::AttachRefused {
            reason: format!("the module `{name}` keeps no state, and what it is granted would be kept from others"),
            hint: "leave out `--state-bytes`",
        }),
        _ => Ok(()),
    }
}

/// Folders that no attachment has. Blocking.
pub(crate) fn remove_leftovers(disk: &dyn Disk, data: &DataDir, catalogue: &Catalogue) -> Result<(), EngineError> {
    let folder = data.derived();
    if !exists(disk, &folder)? {
        return Ok(());
    }
    let known: BTreeSet<_> = ids(catalogue).map(|id| data.derivation(id)).collect();
    let names = disk.list(&folder).map_err(|source| EngineError::data_dir("list", &folder, source))?;
    for left in names.iter().map(|name| folder.join(name)).filter(|path| !known.contains(path)) {
        if let Err(error) = disk.remove_dir_all(&left) {
            tracing::warn!(folder = %left.display(), %error, "what is left of a derived topic can't be removed");
        }
    }
    Ok(())
}

fn ids(catalogue: &Catalogue) -> impl Iterator<Item = u64> {
    catalogue.derivations().map(|(_, _, derive)| derive.id)
}

fn new_id(catalogue: &Catalogue) -> u64 {
    let known: BTreeSet<_> = ids(catalogue).collect();
    loop {
        let id = rand::random::<u64>() >> (u64::BITS - ID_BITS);
        if !known.contains(&id) {
            return id;
        }
    }
}

/// Blocking. After an error the next start removes what is there.
fn make_folder(disk: &dyn Disk, data: &DataDir, id: u64, places: &[i64]) -> Result<(), EngineError> {
    let (parent, folder) = (data.derived(), data.derivation(id));
    let is_new = !exists(disk, &parent)?;
    disk.create_dir_all(&folder).map_err(|source| EngineError::data_dir("create", &folder, source))?;
    for (partition, position) in (0..).zip(places) {
        Store::create(disk, &folder, partition, *position)?;
    }
    let names = if is_new { vec![parent.as_path(), data.root()] } else { vec![parent.as_path()] };
    names.into_iter().try_for_each(|names| disk.sync_dir(names).map_err(|source| EngineError::data_dir("flush", names, source)))
}

/// What does not depend on the topics that there are.
pub(crate) fn check_request(request: &AttachTransform, module: &Module) -> Result<(), EngineError> {
    let Some(into) = &request.derive else { return no_targets() };
    within("state_bytes", into.state_bytes, &(0..=STATE_BYTES_MAX))?;
    within("retries", u64::from(into.retries.unwrap_or(0)), &(0..=u64::from(RETRIES_MAX)))?;
    let distinct: BTreeSet<_> = into.targets.iter().collect();
    match (into.targets.len(), module.world()) {
        (0, _) => return no_targets(),
        (TARGETS_MAX.., _) if into.targets.len() > TARGETS_MAX => {
            return Err(EngineError::TooMany { what: "targets of one module", limit: TARGETS_MAX });
        }
        (2.., World::Transform) => {
            return refused("a transform does not choose among topics", "name one, or build the module for the world `derive`");
        }
        (named, _) if named != distinct.len() => return refused("a topic is named twice", "name each topic once with `--into`"),
        _ => {}
    }
    // Both are written under one producer, each with a sequence of its own.
    if let Some(letters) = request.on_error.dead_letter_topic().filter(|letters| into.targets.iter().any(|target| target == letters)) {
        return refused(
            &format!("`{letters}` takes what is derived, so it can't take the dead letters too"),
            "name another topic for them: `--on-error dead-letter:TOPIC`; `millpond topic create TOPIC` makes it",
        );
    }
    check_state(module, &request.module.name, request.on, into.state_bytes)
}

pub(crate) fn check_targets(catalogue: &Catalogue, source: &str, into: &DeriveInto, dead_letters: Option<&str>) -> Result<(), EngineError> {
    for target in &into.targets {
        if catalogue.runs_on_produced(target) {
            return Err(EngineError::AttachRefused {
                reason: format!("modules run on what is produced to `{target}`, and would not on what is derived into it"),
                hint: "derive into another topic, or detach them first: `millpond topic describe TOPIC` shows them",
            });
        }
    }
    // Whatever can be reached from here.
    let mut next: Vec<&str> = into.targets.iter().map(String::as_str).chain(dead_letters).collect();
    let mut reached = BTreeSet::new();
    while let Some(topic) = next.pop() {
        if topic == source {
            return refused(
                "records would go round for ever: the topic is derived from one of those",
                "derive into topics that lead nowhere near it",
            );
        }
        if reached.insert(topic) {
            let from_here = catalogue.derivations().filter(|(from, ..)| *from == topic);
            next.extend(from_here.flat_map(|(_, attachment, derive)| {
                derive.targets.iter().map(String::as_str).chain(attachment.on_error.dead_letter_topic())
            }));
        }
    }
    Ok(())
}

/// What all attachments together may come to, where one of them takes the place of another one's.
pub(crate) fn check_bounds(catalogue: &Catalogue, partitions: u32, into: &DeriveInto, in_place_of: Option<u64>) -> Result<(), EngineError> {
    let partitions_of = |topic: &str| catalogue.topics.get(topic).map_or(0, |topic| u64::from(topic.partitions));
    let others = || catalogue.derivations().filter(|(_, _, derive)| Some(derive.id) != in_place_of);
    let granted: u64 = others().map(|(from, _, derive)| derive.state_bytes.saturating_mul(partitions_of(from))).sum();
    let asked = into.state_bytes.saturating_mul(u64::from(partitions));
    if granted.saturating_add(asked) > STATE_BYTES_ALL_MAX {
        let [asked, granted, most] = [asked, granted, STATE_BYTES_ALL_MAX].map(|bytes| value_of("state_bytes", bytes));
        let rule = format!("for {partitions} partitions that is {asked}, {granted} are granted already, and {most} can be");
        return Err(EngineError::InvalidConfig { setting: "state_bytes", value: into.state_bytes, rule });
    }
    for target in &into.targets {
        let producers: u64 =
            others().filter(|(_, _, derive)| derive.targets.contains(target)).map(|(from, ..)| partitions_of(from)).sum::<u64>()
                + u64::from(partitions);
        if producers > PRODUCERS_PER_TARGET_MAX as u64 {
            return Err(EngineError::TooMany { what: "partitions that are derived into one topic", limit: PRODUCERS_PER_TARGET_MAX });
        }
    }
    Ok(())
}

fn no_targets<T>() -> Result<T, EngineError> {
    refused("a module that derives topics is to be told which", "name them with `--into TOPIC[,TOPIC...]`")
}

fn refused<T>(reason: &str, hint: &'static str) -> Result<T, EngineError> {
    Err(EngineError::AttachRefused { reason: reason.to_owned(), hint })
}
