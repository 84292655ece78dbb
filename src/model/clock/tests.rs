use super::*;

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const YEAR: u64 = 365 * 24 * HOUR;
const BEGIN: u64 = 50 * YEAR;

/// For how long things are kept.
const KEEP: u64 = 7 * 24 * HOUR;

/// A pace and the clocks that it looks at.
struct Bench {
    pace: Pace,
    wall: u64,
    monotonic: u64,
    log: u64,
    since: u64,
}

impl Bench {
    fn new() -> Self {
        Self {
            pace: Pace::new(BEGIN, 7),
            wall: BEGIN,
            monotonic: 7,
            log: BEGIN,
            since: BEGIN - KEEP,
        }
    }

    /// Lets time pass, and looks. What holds always is checked here.
    fn pass(&mut self, ms: u64) -> Option<Notice> {
        self.wall += ms;
        self.monotonic += ms;
        let notice = self.pace.observe(self.wall, self.monotonic);
        let (log, since) = (self.pace.log_ms, self.pace.kept_since(KEEP));
        assert!(self.pace.held_ms <= self.wall);
        assert!(log >= self.pace.held_ms);
        // However the clock is set, the log goes on by what passes at least, and what expired stays so.
        assert!(log >= self.log + ms);
        assert!(since >= self.since);
        (self.log, self.since) = (log, since);
        notice
    }

    fn set(&mut self, wall: u64) -> Option<Notice> {
        self.wall = wall;
        self.pass(0)
    }

    fn is_kept(&self, made: u64) -> bool {
        made >= self.since
    }

    fn is_well(&self) {
        assert_eq!((self.pace.held_ms, self.log), (self.wall, self.wall));
    }
}

#[test]
fn a_clock_that_goes_as_it_should_is_followed() {
    let mut bench = Bench::new();
    for _ in 0..10 {
        assert_eq!(bench.pass(HOUR * 20), None);
        bench.is_well();
        assert_eq!(bench.since, bench.wall - KEEP);
    }
    // So is one that is put right by less than what is held.
    assert_eq!(bench.set(bench.wall + HOUR), None);
    bench.is_well();
}

#[test]
fn a_clock_that_is_a_year_ahead_for_a_moment_lets_nothing_expire() {
    let mut bench = Bench::new();
    assert_eq!(bench.set(BEGIN + YEAR), Some(Notice::Ahead(YEAR)));
    let ahead = bench.log;
    assert_eq!(bench.pass(59 * MINUTE), None);
    assert_eq!(bench.pace.held_ms, BEGIN + 59 * MINUTE);
    assert_eq!(bench.since, BEGIN + 59 * MINUTE - KEEP);
    assert_eq!(bench.set(BEGIN + 59 * MINUTE), Some(Notice::Returned));
    assert_eq!(bench.pace.held_ms, bench.wall);
    // What was made before and while it was ahead is kept for as long as anything else.
    bench.pass(KEEP - 59 * MINUTE);
    assert!(bench.is_kept(BEGIN) && bench.is_kept(ahead));
    bench.pass(1);
    assert!(!bench.is_kept(BEGIN));
    assert!(!bench.is_kept(ahead));
    // What was held does not count for the next jump.
    let wall = bench.wall;
    assert_eq!(bench.set(wall + 2 * YEAR), Some(Notice::Ahead(2 * YEAR)));
    assert_eq!(bench.pass(59 * MINUTE), None);
    assert_eq!(bench.pace.held_ms, wall + 59 * MINUTE);
}

#[test]
fn a_jump_that_lasts_an_hour_is_followed_and_what_was_made_in_it_is_kept() {
    let mut bench = Bench::new();
    bench.set(BEGIN + YEAR);
    let made = bench.log;
    for _ in 0..59 {
        assert_eq!(bench.pass(MINUTE), None);
        assert!(bench.is_kept(BEGIN));
    }
    assert_eq!(bench.pass(MINUTE), Some(Notice::Followed(YEAR)));
    bench.is_well();
    assert!(!bench.is_kept(BEGIN));
    bench.pass(KEEP - HOUR);
    assert!(bench.is_kept(made));
    bench.pass(1);
    assert!(!bench.is_kept(made));
}

#[test]
fn a_clock_that_jumps_again_is_held_anew() {
    let mut bench = Bench::new();
    bench.set(BEGIN + YEAR);
    bench.pass(50 * MINUTE);
    let ahead = bench.set(BEGIN + 3 * YEAR);
    assert!(matches!(ahead, Some(Notice::Ahead(_))), "{ahead:?}");
    assert_eq!(bench.pass(50 * MINUTE), None);
    assert_eq!(bench.since, BEGIN + 100 * MINUTE - KEEP);
    let followed = bench.pass(10 * MINUTE);
    assert!(
        matches!(followed, Some(Notice::Followed(_))),
        "{followed:?}"
    );
    assert_eq!(bench.since, bench.wall - KEEP);
}

#[test]
fn a_clock_that_was_ten_years_ahead_and_is_right_again_gives_right_times() {
    let mut bench = Bench::new();
    bench.set(BEGIN + 10 * YEAR);
    assert!(bench.pass(HOUR).is_some());
    bench.is_well();
    let made = bench.log;
    let back = bench.set(BEGIN + HOUR);
    assert_eq!(back, Some(Notice::Behind(10 * YEAR)));
    assert_eq!(bench.pace.held_ms, BEGIN + HOUR);
    // What is kept goes on getting older, as fast as time passes.
    assert_eq!(bench.pass(KEEP), None);
    assert!(bench.is_kept(made));
    bench.pass(1);
    assert!(!bench.is_kept(made));
}

#[test]
fn a_clock_that_is_a_year_behind_for_a_while_keeps_and_forgets_as_it_should() {
    let mut bench = Bench::new();
    assert_eq!(bench.set(BEGIN - YEAR), Some(Notice::Behind(YEAR)));
    bench.pass(HOUR / 2);
    assert_eq!(bench.log, BEGIN + HOUR / 2);
    // Right again: that looks like a jump, and is followed without a step of the log.
    assert_eq!(bench.set(BEGIN + HOUR / 2), Some(Notice::Ahead(YEAR)));
    bench.pass(HOUR);
    bench.is_well();
    assert_eq!(bench.since, bench.wall - KEEP);
}

#[test]
fn many_jumps_are_remembered_in_little() {
    let mut bench = Bench::new();
    for _ in 0..100 {
        let wall = bench.wall;
        bench.set(bench.log + YEAR);
        bench.set(wall);
    }
    assert_eq!(bench.pace.skips.len(), SKIPS_MAX);
    assert!(bench.is_kept(BEGIN));
    bench.pass(KEEP + 1);
    assert_eq!(bench.since, bench.log - KEEP);
}

#[test]
fn a_log_that_is_opened_again_goes_on_where_it_was() {
    let clock = Clock::manual(BEGIN);
    let nothing = ClockNote::default;
    clock.go_on_from(0, nothing());
    assert_eq!(clock.moment(KEEP), Moment::at(BEGIN, KEEP));
    // After a short stop.
    clock.set(BEGIN + HOUR);
    clock.go_on_from(BEGIN, nothing());
    assert_eq!(clock.moment(KEEP), Moment::at(BEGIN + HOUR, KEEP));
    // After a month: held for an hour, as a jump is.
    let month = BEGIN + 30 * 24 * HOUR;
    clock.set(month);
    clock.go_on_from(BEGIN, nothing());
    let (moment, note) = clock.look(KEEP);
    assert_eq!(moment.kept_since_ms, BEGIN - KEEP);
    // Also where it is stopped meanwhile.
    clock.advance(HOUR / 2);
    clock.go_on_from(moment.log_ms, note);
    clock.advance(HOUR - 1);
    assert!(clock.moment(KEEP).kept_since_ms <= BEGIN);
    clock.advance(1);
    assert_eq!(
        clock.moment(KEEP),
        Moment::at(month + HOUR / 2 + HOUR, KEEP)
    );
    // A log from a clock that was ten years ahead.
    clock.set(BEGIN);
    clock.go_on_from(BEGIN + 10 * YEAR, nothing());
    let (moment, note) = clock.look(KEEP);
    assert_eq!((moment.wall_ms, moment.held_ms), (BEGIN, BEGIN));
    assert_eq!(moment.log_ms, BEGIN + 10 * YEAR);
    // Its lead is known at the next start, which is quiet, and goes on by the time in between.
    clock.set(BEGIN + MINUTE);
    clock.go_on_from(moment.log_ms, note);
    assert_eq!(clock.moment(KEEP).log_ms, BEGIN + 10 * YEAR + MINUTE);
}

#[test]
fn a_jump_that_has_grown_during_a_stop_lets_nothing_expire() {
    let mut bench = Bench::new();
    bench.set(BEGIN - YEAR);
    assert!(bench.set(BEGIN + YEAR).is_some());
    let made = bench.log;
    for wall in [BEGIN, BEGIN + 10 * YEAR, BEGIN + 11 * YEAR] {
        bench.pace = Pace::after(bench.log, bench.pace.note(), wall, bench.monotonic);
        bench.set(wall);
        assert!(bench.is_kept(BEGIN) && bench.is_kept(made), "{wall}");
        bench.pass(MINUTE);
    }
    // Once it has lasted an hour it is followed; what was made in it is kept on.
    let in_it = bench.log;
    bench.pass(HOUR);
    bench.pass(KEEP - 2 * HOUR);
    assert!(!bench.is_kept(made) && bench.is_kept(in_it));
}
