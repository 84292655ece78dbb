//! A journal that was damaged is refused, or what is read from it is what was written; no bytes on the disk do harm.
#![no_main]

use chatd::store::fuzzing::{Sample, decode};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

thread_local! {
    static SAMPLE: (TempDir, Sample) = {
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
        let sample = Sample::new(directory.path());
        (directory, sample)
    };
}

// Four bytes are one piece of damage: to which file, of which kind, where, and with what.
fuzz_target!(|input: &[u8]| {
    let Some((mode, rest)) = input.split_first() else {
        return;
    };
    if mode % 2 == 0 {
        return decode(rest);
    }
    SAMPLE.with(|(_, sample)| {
        let names = sample.names();
        sample.damaged(|files| {
            for piece in rest.chunks_exact(4) {
                let name = names[usize::from(piece[0]) % names.len()];
                let Some(bytes) = files.get_mut(name) else {
                    continue;
                };
                let place = usize::from(piece[2]) * bytes.len() / 256;
                match piece[1] % 8 {
                    0 => drop(files.remove(name)),
                    1 => bytes.clear(),
                    2 => bytes.truncate(place),
                    3 => bytes.resize(bytes.len() + usize::from(piece[3]), 0),
                    4 => bytes.extend(bytes.clone().iter().skip(place).take(piece[3].into())),
                    5 => drop(bytes.drain(place..bytes.len().min(place + usize::from(piece[3])))),
                    _ => {
                        // Any byte can be reached from the place before it.
                        let at = place + usize::from(piece[1] / 8);
                        if let Some(byte) = bytes.get_mut(at) {
                            *byte ^= piece[3];
                        }
                    }
                }
            }
        });
    });
});
