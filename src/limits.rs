//! Every maximum, in one place, with its unit last.
//!
//! What an operator may change is a field of [`Limits`] and stands in chatd.toml under `[limits]`; the rest are
//! constants of the protocol (protocol.md, 3) or bounds that keep the daemon's own queues finite.

use serde::{Deserialize, Serialize};

/// Bytes in a login.
pub const LOGIN_MAX_BYTES: usize = 254;
/// Bytes in a name or surname.
pub const NAME_MAX_BYTES: usize = 256;
/// Bytes in a conversation's description.
pub const DESCRIPTION_MAX_BYTES: usize = 4096;
/// Bytes in a password: bcrypt reads no more.
pub const PASSWORD_MAX_BYTES: usize = 72;
/// Bytes in the nonce of a message.
pub const NONCE_MAX_BYTES: usize = 64;
/// Bytes in the type of an ephemeral event.
pub const EVENT_TYPE_MAX_BYTES: usize = 64;
/// Bytes in an `obj_id`, `type` or similar opaque text of a subscription.
pub const OPAQUE_MAX_BYTES: usize = 256;
/// Levels of objects and lists within each other in one line: as many as every common reader of JSON follows.
pub const JSON_MAX_DEPTH: usize = 127;
/// Bytes of a line that is not JSON for which it is found out what was meant.
pub const MENDED_MAX_BYTES: usize = 64 * 1024;
/// Words in the phrases of one `match`; in scripts without spaces each character counts as one.
pub const PHRASE_WORDS_MAX: usize = 1024;
/// Bytes into which the characters of one `match` may decompose: four times a line. Few decompose into more than four.
pub const FOLDED_QUERY_MAX_BYTES: usize = 256 * 1024;
/// Ids in one `user_ids`.
pub const USER_IDS_MAX: usize = 1000;
/// Members that `conversation get` and search rows list; larger conversations leave the list out.
pub const MEMBERS_SHOWN_MAX: u64 = 1000;
/// Seconds' worth of requests or bytes that may come at once.
pub const BURST_SECONDS: u32 = 5;
/// Deliveries of an event that count as a request of its connection and its address; its user's are counted one by one.
pub const DELIVERIES_PER_REQUEST: usize = 100;
/// Changes of one user that may be under way, over all its connections of login listeners. What an event costs is known
/// only when it has been given out, so no more than these can go beyond the user's rates.
pub const CHANGES_UNDER_WAY_MAX: u32 = 8;
/// Milliseconds of a user's rate of deliveries that its last events may still owe for several of its changes to be under way:
/// while it owes more, one is, so that no round gives out more than one event to a crowd for the same user.
pub const DEAR_EVENTS_MS: u64 = 20;
/// Bytes of an answer that count as a request.
pub const ANSWER_BYTES_PER_REQUEST: usize = 16 * 1024;
/// Types of one subscription that count as a request.
pub const TYPES_PER_REQUEST: usize = 100;
/// How many times the failed logins of one account or token from one address an address may have with all of them.
pub const FAILED_LOGINS_PER_ADDRESS: u32 = 5;
/// Addresses, accounts and tokens whose failed logins are remembered.
pub const FAILED_LOGINS_MAX_ENTRIES: usize = 100_000;
/// Seconds for which the logins from an address wait in a lane of their own after one that failed. Hashing takes so
/// long that a crowd whose failures were forgotten in a second would keep everyone else out.
pub const SUSPECT_SECONDS: u64 = 60;
/// Failed logins a minute of a whole network after which all of it is suspicious.
pub const SUSPECT_FAILURES_PER_NETWORK: u32 = 8;
/// Accounts and tokens that are remembered to have logged in well from an address.
pub const KNOWN_LOGINS_MAX: usize = 50_000;
/// Of those, the addresses of one account or token.
pub const KNOWN_LOGINS_MAX_PER_ACCOUNT: usize = 8;
/// How many times the turns of one address a network may have to be as modest: many may share it.
pub const LOGINS_PER_NETWORK: f64 = 4.0;
/// Accounts, addresses and networks of which it is remembered how many passwords were hashed for them.
pub const LOGIN_SHARES_MAX_ENTRIES: usize = 100_000;
/// Milliseconds of work on passwords that may wait for the threads, before strangers are told to come back.
pub const LOGINS_WAIT_MS: u64 = 5000;
/// Passwords of strangers that may wait for each thread, however long they take.
pub const LOGINS_MIN_WAITING_PER_THREAD: usize = 16;
/// Passwords of strangers that may wait for all threads, however short they take.
pub const LOGINS_MAX_WAITING: usize = 1024;
/// Passwords, of strangers whose addresses have failed lately, that may wait when they are presented for the first time.
pub const SUSPICIOUS_LOGINS_MAX_WAITING: usize = 2;
/// Strangers that were told to come back, and keep their place in the queue meanwhile.
pub const LOGIN_PLACES_MAX: usize = 10_000;
/// Of those, the ones from one address.
pub const LOGIN_PLACES_MAX_PER_ADDRESS: usize = 1000;
/// Milliseconds that a stranger waits for a thread without an answer; then it is told to come back, and keeps its place.
pub const LOGIN_WAIT_MAX_MS: u64 = 10_000;
/// Milliseconds after which a stranger is told to come back, at least.
pub const LOGIN_RETRY_MIN_MS: u64 = 100;
/// Milliseconds after which a stranger is told to come back, at most.
pub const LOGIN_RETRY_MAX_MS: u64 = 60_000;
/// Seconds of a connection's waiting for a login, as the server had it wait, that are not counted as its own.
pub const LOGIN_EXCUSED_MAX_SECONDS: u64 = 3600;
/// TLS handshakes under way on login listeners, however many addresses they come from.
pub const HANDSHAKES_MAX: usize = 512;
/// TLS handshakes under way from one address; others wait for these.
pub const HANDSHAKES_MAX_PER_ADDRESS: usize = 16;
/// How many times the rate of one address a network has for its handshakes.
pub const HANDSHAKES_PER_NETWORK: u32 = 4;
/// Seconds that a handshake may take from its turn on.
pub const HANDSHAKE_SECONDS: u64 = 10;
/// Descriptors that are kept back from connections: for the store's files, and for refusing politely.
pub const KEPT_DESCRIPTORS: usize = 32;
/// Connections that gave their places up to others and are still closing, where all the places are taken, of trusted and of
/// login listeners each: together half of the descriptors kept back.
pub const LEAVING_MAX_CONNECTIONS: usize = KEPT_DESCRIPTORS / 4;
/// Bytes in one PROXY header, with all that a proxy adds to it.
pub const PROXY_HEADER_MAX_BYTES: usize = 4096;
/// Seconds that a proxy has to send its header.
pub const PROXY_HEADER_SECONDS: u64 = 5;
/// Connections of proxies that have not sent their headers yet.
pub const PROXY_HEADERS_MAX_WAITING: usize = 1000;
/// Milliseconds between two notes of a token's use.
pub const TOKEN_USE_NOTED_MS: u64 = 60_000;
/// Milliseconds that the opening of the store has to come to an end when the daemon is asked to stop meanwhile.
pub const OPENING_GRACE_MS: u64 = 700;
/// Milliseconds for which connections wait for the store to be opened, before they are turned away instead.
pub const OPENING_QUIET_MS: u64 = 1000;
/// Connections at a time that are turned away with time to take their last line, while the store is being opened.
pub const PARTING_MAX_CONNECTIONS: usize = 256;
/// Milliseconds that connections have to take their last line when the store has failed: the process ends within a second.
pub const FAILURE_GRACE_MS: u64 = 500;
/// Milliseconds that a connection which is closed has to take what waits for it.
pub const CLOSE_GRACE_MS: u64 = 900;
/// Bytes that are still read, and dropped, of a connection that is being closed: more than the system's buffers hold of what
/// was on its way.
pub const LINGER_MAX_BYTES: usize = 8 * 1024 * 1024;
/// The same where nobody is logged in.
pub const LINGER_MAX_BYTES_NOT_LOGGED_IN: usize = 64 * 1024;
/// Failures a second from one address that have lines of their own in the audit log; the rest are summed up.
pub const AUDITED_LINES_PER_SECOND: u32 = 100;
/// Addresses whose failures of one second are counted apart; those of the others are counted together.
pub const AUDITED_MAX_ADDRESSES: usize = 10_000;
/// Ids of one list that an audit line names.
pub const AUDITED_IDS_MAX: usize = 16;
/// Conversations whose reading is summed up in one second for one address; more have lines of their own.
pub const AUDITED_MAX_READINGS: usize = 1024;
/// Bytes of log lines that wait to be written; more are dropped and counted.
pub const LOG_QUEUE_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Milliseconds that whoever reads the log has to take what waits when the daemon ends.
pub const LOG_FLUSH_MS: u64 = 400;
/// Seconds that connections have to take what waits for them when the daemon stops.
pub const SHUTDOWN_FLUSH_SECONDS: u64 = 2;
/// Tokens of one user.
pub const TOKENS_MAX: usize = 100;

/// The largest `max_message_bytes` that may be configured: what the store can hold in one row.
pub const MESSAGE_CEILING_BYTES: usize = 96 * 1024;
/// The largest `max_line_bytes` that may be configured.
pub const LINE_CEILING_BYTES: usize = 16 * 1024 * 1024;

/// Deliveries of a connection's own events after which the other connections of its thread have their turn.
pub const TURN_MAX_DELIVERIES: usize = 32_768;
/// Operations that the store decides, writes and syncs together.
pub const ROUND_MAX_OPERATIONS: usize = 512;
/// Bytes of changes after which a round is closed early.
pub const ROUND_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Operations that wait in the store's mailbox before senders wait.
pub const MAILBOX_MAX_OPERATIONS: usize = 1024;
/// Members that the event of a conversation's deletion names; the others are noted in rows of their own.
pub const AUDIENCE_MAX_USERS: usize = 1000;
/// Conversations of a user, the newest, whose members are told at once of what happens to it where users see their
/// companions alone.
pub const COMPANY_MAX_CONVERSATIONS: usize = 1000;
/// Rows that one slice of a large deletion removes, so that other requests fit between slices.
pub const SLICE_MAX_ROWS: usize = 64;
/// Rows that are written into the state's tree at once for a change that has more, so that other requests fit between.
pub const BACKLOG_SLICE_ROWS: usize = 256;
/// Rows of large changes that wait to be written into the state's tree; what is beyond them is written at once.
pub const BACKLOG_MAX_ROWS: usize = 65_536;
/// Requests of one connection that may be under way; more are left unread meanwhile.
pub const IN_FLIGHT_MAX_REQUESTS: usize = 1024;
/// Milliseconds after which a connection that waits for memory looks again whether others have given some back.
pub const MEMORY_LOOK_MS: u64 = 100;
/// Bytes of stored events that one catch-up read takes from the journal.
pub const CATCH_UP_MAX_BYTES: usize = 256 * 1024;
/// Stored events of which it is remembered whether their text stands.
pub const VERDICTS_MAX: usize = 65_536;
/// Bytes from a client of a login listener that the system holds until they are read; Linux takes twice as many.
pub const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;
/// Bytes for a client of a login listener that the system holds until they are taken; Linux takes twice as many.
pub const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// Bytes for a client of a login listener that the system holds and has not sent yet; it takes a segment more at most.
pub const UNSENT_MAX_BYTES: u32 = 16 * 1024;
/// Bytes that the system is taken to hold for a client that does not take what is sent to it, with what each costs.
pub const SYSTEM_HELD_BYTES: usize = 128 * 1024;
/// Bytes of one read for which a connection keeps room by itself; what takes more is counted with what all hold.
pub const READ_UNCOUNTED_MAX_BYTES: usize = 1024 * 1024;
/// Bytes that a member takes in a list of members, with its place in the answer.
pub const MEMBER_LISTED_BYTES: usize = 32;
/// Bytes that are handed to a socket in one write.
pub const WRITE_MAX_BYTES: usize = 256 * 1024;
/// Bytes in one journal segment, after which the next one is begun.
pub const SEGMENT_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes of a journal segment between two entries of its index: what is read to find a record, and decoded at once.
pub const INDEX_EVERY_BYTES: u64 = 1024 * 1024;
/// Bytes of the newest events that are kept in memory, for all who are a little behind.
pub const RECENT_EVENTS_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of older events that are kept in memory after they were read, for others who read there.
pub const READ_EVENTS_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Files with what was cut off the journal's end at a start; older ones are removed.
pub const CUTS_MAX_FILES: usize = 16;
/// Bytes a second that are read to check the sums of sealed segments in the background.
pub const AUDIT_BYTES_PER_SECOND: u64 = 64 * 1024 * 1024;
/// Bytes in one journal record: a length above this is damage, not a record.
pub const RECORD_MAX_BYTES: usize = 256 * 1024 * 1024;
/// Users whose quotas of a day are counted; those who have stored least are forgotten first.
pub const QUOTA_USERS_REMEMBERED_MAX: usize = 100_000;
/// Askers whose reads are remembered, so that they take turns, while some read; those who do not read are forgotten first.
pub const ASKERS_REMEMBERED_MAX: usize = 16_384;
/// Rows that a query which rounds overtake again and again reads before it tells of several moments.
pub const SETTLE_MAX_ROWS: u64 = 20_000;
/// Free bytes on the disk below which no change is taken.
pub const FREE_MIN_BYTES: u64 = 8 * 1024 * 1024;
/// Free bytes that a disk which was full must have above [`FREE_MIN_BYTES`] before changes are taken again.
pub const FREE_AGAIN_BYTES: u64 = 1024 * 1024;
/// Free bytes that deletions leave on a full disk, besides what the state needs for itself.
pub const FREE_LAST_BYTES: u64 = 1024 * 1024;
/// Bytes that are kept back, at least, so that chatd can start on a full disk.
pub const RESERVE_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes that are kept back for deletions on a full disk.
pub const DELETIONS_RESERVE_BYTES: u64 = 8 * 1024 * 1024;
/// Milliseconds that the clock may jump ahead before what expires does not follow at once; and for which a larger jump
/// must have lasted before it does.
pub const CLOCK_HELD_MS: u64 = 3_600_000;
/// Milliseconds that the clock may be behind the newest record before that is told.
pub const CLOCK_TOLD_MS: u64 = 60_000;
/// Milliseconds after which the clock is looked at again by whoever waits for a time: it may have been set.
pub const CLOCK_LOOK_MS: u64 = 1000;
/// Milliseconds after the newest record when the time is noted in the log, so that the next start knows how long chatd
/// was off.
pub const TIME_NOTED_MS: u64 = 1_800_000;
/// Milliseconds after which a round is logged as slow.
pub const SLOW_ROUND_MS: u128 = 250;
/// Milliseconds that connections have to end once nothing more is done for them.
pub const HURRY_GRACE_MS: u64 = 1000;
/// Seconds that a stopping daemon has to close its store; what is not written by then is built again at the next start.
pub const STORE_CLOSE_SECONDS: u64 = 4;
/// Seconds that a stopping daemon gives its connections to take their answers.
pub const SHUTDOWN_GRACE_SECONDS: u64 = 3;

/// The limits of chatd.toml's `[limits]`, sent by `server info`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes in one request line, its end not counted.
    pub max_line_bytes: usize,
    /// Bytes in one message text.
    pub max_message_bytes: usize,
    /// Rows in one page of a search.
    pub max_page: usize,
    /// Bytes of rows in one page of a search.
    pub max_page_bytes: usize,
    /// Bytes that wait for a client before its requests are left unread and its events come from the journal.
    pub max_pending_bytes: usize,
    /// Bytes held for all connections together: answers and events that wait, requests under way, subscriptions.
    pub max_memory_bytes_pending: usize,
    /// The same of the connections of login listeners from one address.
    pub max_memory_bytes_pending_per_address: usize,
    /// Seconds without taking a single byte, while some wait, after which a connection is closed.
    pub stalled_seconds: u64,
    /// Connections of login listeners in total.
    pub max_connections: usize,
    /// Connections of trusted listeners, which have places of their own.
    pub max_connections_trusted: usize,
    /// Connections of login listeners from one address (IPv6: from one network of 64 bits).
    pub max_connections_per_address: usize,
    /// Connections of login listeners on which nobody is logged in.
    pub max_connections_not_logged_in: usize,
    /// Sessions of one user on login listeners, and on trusted ones for a remote.
    pub max_sessions_per_user: usize,
    /// Subscriptions of one connection.
    pub max_subscriptions: usize,
    /// Bytes of the subscriptions of one connection, each with what it costs besides its texts.
    pub max_subscription_bytes: usize,
    /// TLS handshakes a second from one address on login listeners; five seconds' worth may come at once.
    pub handshakes_per_second_per_address: u32,
    /// Requests a second of one connection of a login listener; five seconds' worth may come at once.
    pub requests_per_second: u32,
    /// Requests a second from one address on login listeners.
    pub requests_per_second_per_address: u32,
    /// Requests a second of one user, over all its connections.
    pub requests_per_second_per_user: u32,
    /// Bytes of requests a second of one connection of a login listener.
    pub bytes_per_second: u32,
    /// Bytes of requests a second from one address on login listeners.
    pub bytes_per_second_per_address: u32,
    /// Bytes of requests a second of one user, over all its connections.
    pub bytes_per_second_per_user: u32,
    /// Deliveries a second of one user's events, over all its connections.
    pub deliveries_per_second: u32,
    /// Rows that a user may store in a day of UTC, admins excepted: messages, edits, conversations, members that are named,
    /// tokens. 0: as many as it likes.
    pub rows_per_day_per_user: u64,
    /// Bytes that a user may store in a day of UTC, likewise.
    pub bytes_per_day_per_user: u64,
    /// Seconds that one search, or any other read, may take.
    pub search_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_line_bytes: 65_536,
            max_message_bytes: 16_384,
            max_page: 1000,
            max_page_bytes: 1_048_576,
            max_pending_bytes: 1_048_576,
            max_memory_bytes_pending: 268_435_456,
            max_memory_bytes_pending_per_address: 67_108_864,
            stalled_seconds: 300,
            max_connections: 10_000,
            max_connections_trusted: 1000,
            max_connections_per_address: 100,
            max_connections_not_logged_in: 1000,
            max_sessions_per_user: 100,
            max_subscriptions: 10_000,
            max_subscription_bytes: 4_194_304,
            handshakes_per_second_per_address: 20,
            requests_per_second: 200,
            requests_per_second_per_address: 2000,
            requests_per_second_per_user: 400,
            bytes_per_second: 1_048_576,
            bytes_per_second_per_address: 8_388_608,
            bytes_per_second_per_user: 2_097_152,
            deliveries_per_second: 200_000,
            rows_per_day_per_user: 100_000,
            bytes_per_day_per_user: 1_073_741_824,
            search_seconds: 2,
        }
    }
}
