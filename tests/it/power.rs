//! What was acknowledged survives a power cut.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::crash::{CONFIG, seed};
use crate::harness::machine::{Disk, PowerSwitch, root_with, skipped};
use crate::harness::{Daemon, PATIENCE};
use crate::ledger::Ledger;

const DISK_BYTES: u64 = 512 * 1024 * 1024;
/// The file system writes nothing of its own accord in the time that a trial takes.
const MOUNT_OPTIONS: &str = "loop,commit=30";

#[test]
fn a_power_cut_loses_nothing_acknowledged() {
    let trials: usize = std::env::var("CHATD_POWER_CUTS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(30);
    let made = root_with(&["mkfs.ext4", "mount", "umount", "perl"]).and_then(|()| {
        let disk = Disk::ext4(DISK_BYTES)?;
        disk.mount(MOUNT_OPTIONS).map(|_| disk)
    });
    let disk = match made {
        Ok(disk) => disk,
        Err(why) => return skipped("a_power_cut_loses_nothing_acknowledged", &why),
    };
    let mut random = StdRng::seed_from_u64(seed());
    let mut ledger = None;
    let mut unsynced_lost = 0;
    for trial in 0..trials {
        let mount = disk.mount(MOUNT_OPTIONS).unwrap();
        let mut daemon = Daemon::on_dir(&mount.path().join("data"), CONFIG);
        let ledger = ledger.get_or_insert_with(|| Ledger::new(&mut daemon.client()));
        let switch = PowerSwitch::of(&mount).unwrap();
        let control = Control::begin(mount.path(), trial);
        let mut synced = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| control.append_and_sync());
            let (mark, wanted) = (trial.to_string(), random.random_range(1..400));
            ledger.write_until(&mut daemon, &mark, wanted, |daemon, counting| {
                fs::write(&control.unsynced, "not on the disk yet").unwrap();
                counting.stop();
                synced = control.synced_bytes.load(Ordering::SeqCst);
                switch.cut().unwrap();
                daemon.kill();
            });
        });
        drop(daemon);
        drop(mount);
        let _mount = disk.mount(MOUNT_OPTIONS).unwrap();
        unsynced_lost += usize::from(control.check(synced));
    }
    let mount = disk.mount(MOUNT_OPTIONS).unwrap();
    let daemon = Daemon::on_dir(&mount.path().join("data"), CONFIG);
    let ledger = ledger.unwrap();
    let (stored, events) = ledger.check(&mut daemon.client());
    assert!(
        unsynced_lost > 0,
        "what was not synced survived every time: these were no power cuts"
    );
    println!(
        "{trials} power cuts, {} acknowledged, {stored} stored, {events} events; what was not synced was lost {unsynced_lost} times",
        ledger.len()
    );
}

/// What the file system itself keeps and loses, beside chatd: without it a finding would not say whose fault it is.
struct Control {
    synced: PathBuf,
    /// Bytes of that file that a sync has confirmed.
    synced_bytes: AtomicU64,
    unsynced: PathBuf,
}

impl Control {
    fn begin(directory: &Path, trial: usize) -> Self {
        let synced = directory.join(format!("synced-{trial}"));
        File::create(&synced).unwrap().sync_all().unwrap();
        File::open(directory).unwrap().sync_all().unwrap();
        Self {
            synced,
            synced_bytes: AtomicU64::new(0),
            unsynced: directory.join(format!("unsynced-{trial}")),
        }
    }

    /// Appends and syncs until the power is gone.
    fn append_and_sync(&self) {
        // The power may be gone before this thread had its first turn.
        let Ok(mut file) = File::options().append(true).open(&self.synced) else {
            return;
        };
        let give_up = Instant::now() + PATIENCE;
        while Instant::now() < give_up
            && file
                .write_all(b"synced\n")
                .and_then(|()| file.sync_data())
                .is_ok()
        {
            self.synced_bytes.fetch_add(7, Ordering::SeqCst);
        }
    }

    /// Checks that what had been synced is there; true if what had not been is gone.
    fn check(&self, synced_bytes: u64) -> bool {
        let kept = fs::metadata(&self.synced).unwrap().len();
        assert!(
            kept >= synced_bytes,
            "the file system itself lost synced bytes: {kept} of {synced_bytes} are left"
        );
        !fs::read(&self.unsynced).is_ok_and(|kept| !kept.is_empty())
    }
}
