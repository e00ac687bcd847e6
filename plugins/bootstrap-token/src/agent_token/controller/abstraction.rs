//! From what was read to the state that the next step depends on. **The safety of a rotation rests on this as much as on its stages.**
//!
//! What servers and nodes show comes from the abstraction of the session. Here it is decided which files are the newest, and which servers
//! have started. What is missing never counts as a permission.

use std::collections::{BTreeMap, BTreeSet};

use client::secret::Fingerprint;

use super::super::rotation::observed::{Agent, Observed, Purpose, PutResult};
use super::super::rotation::record::Record;
use crate::server_token::rotation::observed as of_servers;

/// The time of a start is computed from the clock of the node, which is corrected now and then.
const CORRECTION: i64 = 2;

/// Everything that was read.
pub(super) struct Inputs<'a> {
    pub(super) seen: of_servers::Observed,
    pub(super) purpose: Purpose,
    pub(super) given_old: Option<Fingerprint>,
    /// When `cred/passwd` of each server was written. A server whose file could not be read is missing, or has no time.
    pub(super) passwd_times: &'a BTreeMap<String, Option<i64>>,
    /// The nodes that have a backup of the run.
    pub(super) with_backups: BTreeSet<String>,
    /// When each server has started, as the run has recorded it. `None`: there is no record yet.
    pub(super) recorded_starts: Option<&'a BTreeMap<String, i64>>,
    /// The same now. A server of which that is not known is missing.
    pub(super) starts: &'a BTreeMap<String, i64>,
    pub(super) put: PutResult,
    pub(super) backup: Option<&'a Record>,
}

impl Inputs<'_> {
    pub(super) fn observed(self) -> Observed {
        let has_node_access = self.seen.options.has_node_access;
        Observed {
            newest: has_node_access.then(|| self.newest()),
            started: self.started(),
            purpose: self.purpose,
            given: self.seen.given,
            given_new: self.seen.given_new.filter(|_| self.purpose != Purpose::Remove),
            given_old: self.given_old,
            put: self.put,
            backup: self.backup.cloned(),
            writes_agents: self.seen.options.repin == of_servers::Repin::ServersAndAgents,
            cluster: self.seen.cluster,
            options: self.seen.options,
            servers: self.seen.servers,
            members: self.seen.members,
            joining: self.seen.joining,
            encryption: self.seen.encryption,
            clocks: self.seen.clocks,
            output: self.seen.output,
            may_be_in_flight: self.seen.may_be_in_flight,
            agents: self
                .seen
                .agents
                .into_iter()
                .map(|(name, configured)| {
                    let has_configuration_backup = self.with_backups.contains(&name);
                    let agent = Agent {
                        configured,
                        has_configuration_backup,
                    };
                    (name, agent)
                })
                .collect(),
        }
    }

    /// Empty: the file of a server could not be read.
    fn newest(&self) -> BTreeSet<String> {
        let time = |name: &String| Some((name.clone(), (*self.passwd_times.get(name)?)?));
        let times: Option<Vec<(String, i64)>> = self.seen.servers.keys().map(time).collect();
        let times = times.unwrap_or_default();
        let latest = times.iter().map(|(_, time)| *time).max();
        let newest = times.into_iter().filter(|(_, time)| Some(*time) == latest);
        newest.map(|(name, _)| name).collect()
    }

    /// Before there is a record, the run begins.
    fn started(&self) -> Option<BTreeSet<String>> {
        let mut started = BTreeSet::new();
        for name in self.seen.servers.keys() {
            let now = self.starts.get(name)?;
            let Some(recorded) = self.recorded_starts else {
                continue;
            };
            let is_same = |before: &i64| (now - before).abs() <= CORRECTION;
            if recorded.is_empty() {
                return None;
            }
            if !recorded.get(name).is_some_and(is_same) {
                started.insert(name.clone());
            }
        }
        Some(started)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::server_token::session::abstraction::tests::observed;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn by_name<T: Copy>(of: &[(&str, T)]) -> BTreeMap<String, T> {
        of.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    fn seen(
        has_node_access: bool,
        times: &[(&str, Option<i64>)],
        recorded: Option<&[(&str, i64)]>,
        starts: &[(&str, i64)],
    ) -> Observed {
        let mut seen = observed();
        seen.options.has_node_access = has_node_access;
        Inputs {
            seen,
            purpose: Purpose::Rotate,
            given_old: None,
            passwd_times: &by_name(times),
            with_backups: BTreeSet::new(),
            recorded_starts: recorded.map(by_name).as_ref(),
            starts: &by_name(starts),
            put: PutResult::Unknown,
            backup: None,
        }
        .observed()
    }

    #[rstest]
    #[case::one(&[("s1", Some(5)), ("s2", Some(7)), ("s3", Some(6))], &["s2"])]
    #[case::same_second(&[("s1", Some(7)), ("s2", Some(7)), ("s3", Some(6))], &["s1", "s2"])]
    #[case::one_is_down(&[("s1", Some(5)), ("s2", None), ("s3", Some(6))], &[])]
    #[case::one_was_not_read(&[("s1", Some(5)), ("s3", Some(6))], &[])]
    fn the_newest_file_is_known_only_if_all_were_read(#[case] times: &[(&str, Option<i64>)], #[case] newest: &[&str]) {
        assert_eq!(seen(true, times, None, &[]).newest, Some(names(newest)));
        assert_eq!(seen(false, times, None, &[]).newest, None);
    }

    const NOW: [(&str, i64); 3] = [("s1", 100), ("s2", 200), ("s3", 300)];

    #[rstest]
    #[case::the_run_begins(None, &NOW, Some(&[][..]))]
    #[case::none(Some(&NOW[..]), &NOW, Some(&[][..]))]
    #[case::clock_corrected(Some(&[("s1", 102), ("s2", 200), ("s3", 298)][..]), &NOW, Some(&[][..]))]
    #[case::one(Some(&[("s1", 100), ("s2", 190), ("s3", 300)][..]), &NOW, Some(&["s2"][..]))]
    #[case::joined(Some(&NOW[..2]), &NOW, Some(&["s3"][..]))]
    #[case::one_is_not_known(Some(&NOW[..]), &NOW[..2], None)]
    #[case::begun_without_a_record_of_them(Some(&[][..]), &NOW, None)]
    fn which_servers_have_started_is_known_only_of_all(
        #[case] recorded: Option<&[(&str, i64)]>,
        #[case] starts: &[(&str, i64)],
        #[case] started: Option<&[&str]>,
    ) {
        assert_eq!(seen(false, &[], recorded, starts).started, started.map(names));
    }
}
