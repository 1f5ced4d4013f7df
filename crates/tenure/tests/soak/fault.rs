//! The kinds of faults, and which place can have which.

use crate::place::Place;

/// What befalls the holder, all contenders, or the servers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    // Its network, until another holds the name.
    BlackHoled,
    HalfOpened,
    AnswersHeld,
    RequestsHeld,
    /// Everybody's, past the ttl.
    AllCutOff,
    // Its network, for a while.
    Delayed,
    Reset,
    Refused,
    // Answers that are lost after the store has done what was asked.
    RenewalAnswersLost,
    AcquireAnswersLost,
    ReleaseAnswerLost,
    // Its process.
    HolderKilled,
    /// Until another holds the name.
    HolderPaused,
    HolderPausedBriefly,
    /// Between a check that passed and its effect, until another holds the name.
    HolderPausedInAct,
    /// Without being closed.
    SessionDropped,
    Released,
    Transferred,
    // All servers of the place.
    ServersKilled,
    ServersRestarted,
    /// Past the ttl.
    ServersPaused,
    /// By the server's operator.
    ConnectionsEnded,
    // The leader of etcd's cluster.
    LeaderKilled,
    LeaderStopped,
    LeaderPaused,
    // The file of SQLite, by another that writes: past the ttl, and briefly.
    FileLocked,
    FileLockedBriefly,
}

use Kind::{
    AcquireAnswersLost, AllCutOff, AnswersHeld, BlackHoled, ConnectionsEnded, Delayed, FileLocked,
    FileLockedBriefly, HalfOpened, HolderKilled, HolderPaused, HolderPausedBriefly,
    HolderPausedInAct, LeaderKilled, LeaderPaused, LeaderStopped, Refused, ReleaseAnswerLost,
    Released, RenewalAnswersLost, RequestsHeld, Reset, ServersKilled, ServersPaused,
    ServersRestarted, SessionDropped, Transferred,
};

impl Kind {
    pub(crate) const ALL: [Self; 27] = [
        BlackHoled,
        HalfOpened,
        AnswersHeld,
        RequestsHeld,
        AllCutOff,
        Delayed,
        Reset,
        Refused,
        RenewalAnswersLost,
        AcquireAnswersLost,
        ReleaseAnswerLost,
        HolderKilled,
        HolderPaused,
        HolderPausedBriefly,
        HolderPausedInAct,
        SessionDropped,
        Released,
        Transferred,
        ServersKilled,
        ServersRestarted,
        ServersPaused,
        ConnectionsEnded,
        LeaderKilled,
        LeaderStopped,
        LeaderPaused,
        FileLocked,
        FileLockedBriefly,
    ];

    pub(crate) fn befalls(self, place: Place) -> bool {
        match self {
            HolderKilled | HolderPaused | HolderPausedBriefly | HolderPausedInAct
            | SessionDropped | Released | Transferred => true,
            FileLocked | FileLockedBriefly => place == Place::Sqlite,
            LeaderKilled | LeaderStopped | LeaderPaused => place == Place::EtcdCluster,
            ConnectionsEnded => {
                matches!(place, Place::Postgres | Place::Redis | Place::RedisDurable)
            }
            // They would come back without their data, and without their bucket.
            ServersKilled | ServersRestarted if matches!(place, Place::S3 | Place::Azure) => false,
            // Node by node, each waits long for another to lead.
            ServersRestarted => !matches!(place, Place::Sqlite | Place::EtcdCluster),
            _ => place != Place::Sqlite,
        }
    }

    /// Whether the network of another contender may be at fault meanwhile.
    pub(crate) fn leaves_room(self) -> bool {
        !matches!(self, AllCutOff | Delayed | AcquireAnswersLost)
    }

    /// Those of the short run, which take some seconds in all.
    pub(crate) fn short(place: Place) -> Vec<Self> {
        let wanted: &[Self] = match place {
            Place::Sqlite => &[
                HolderKilled,
                HolderPaused,
                FileLocked,
                Transferred,
                HolderPausedBriefly,
                SessionDropped,
                FileLockedBriefly,
                Released,
                HolderKilled,
                HolderPausedInAct,
                Transferred,
                HolderKilled,
            ],
            Place::EtcdCluster => &[
                LeaderKilled,
                RequestsHeld,
                LeaderStopped,
                RenewalAnswersLost,
                LeaderPaused,
                Transferred,
                ServersKilled,
                Released,
            ],
            Place::Etcd | Place::Kubernetes => &[
                BlackHoled,
                RenewalAnswersLost,
                ReleaseAnswerLost,
                HolderKilled,
                Transferred,
                Reset,
                AcquireAnswersLost,
                ServersKilled,
            ],
            Place::S3 | Place::Azure => &[
                BlackHoled,
                RenewalAnswersLost,
                Transferred,
                AcquireAnswersLost,
                ReleaseAnswerLost,
                Reset,
                ServersPaused,
                HolderKilled,
            ],
            _ => &[
                BlackHoled,
                RenewalAnswersLost,
                Transferred,
                AcquireAnswersLost,
                ReleaseAnswerLost,
                RequestsHeld,
                Reset,
                ConnectionsEnded,
                HolderPausedInAct,
                ServersKilled,
                SessionDropped,
                HolderKilled,
            ],
        };
        wanted.to_vec()
    }
}
