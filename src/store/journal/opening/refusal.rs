//! What is said of a journal that is not whole: what is wrong, and the ways out.

use super::CheckedJournal;
use crate::store::journal::Damage;
use crate::store::journal::format::Next;
use crate::store::journal::manifest::MANIFEST;
use crate::store::journal::records::Records;
use crate::store::journal::segment::segment_name;

impl CheckedJournal {
    pub(super) fn not_before(&self, record: u64, who: &str) -> Result<(), Damage> {
        if record <= self.end.record {
            return Ok(());
        }
        Err(self.refusal(&match self.end.segment {
            0 => format!(
                "the journal in {} is empty, but {who} record {record}",
                self.path()
            ),
            segment => format!(
                "the journal ends with record {} at byte {} of {}, but {who} record {record}",
                self.end.record,
                self.end.bytes,
                self.segment_path(segment)
            ),
        }))
    }

    pub(super) fn refusal_at(&self, records: &Records, next: Next) -> Damage {
        self.refusal(&records.damaged(next).0)
    }

    /// What is wrong, and the ways out.
    pub(super) fn refusal(&self, what: &str) -> Damage {
        let whole = self.end.record;
        let manifest = self.directory.join(MANIFEST);
        let manifest = manifest.display();
        let knowingly = if whole == 0 {
            format!(
                "to begin anew without any record, write the line \"end 0\" into {manifest} and start again"
            )
        } else {
            format!(
                "to go on knowingly with what is whole (records 1 to {whole} at most), write the line \"end {whole}\" into \
                 {manifest} and start again"
            )
        };
        Damage(format!(
            "{what}. Nothing was changed. Restore the file, or the data directory, from a backup; or, {knowingly}: what is \
             behind is kept beside, and no longer used"
        ))
    }

    pub(super) fn path(&self) -> String {
        self.directory.path().display().to_string()
    }

    pub(super) fn segment_path(&self, first_record: u64) -> String {
        let path = self.directory.join(segment_name(first_record));
        path.display().to_string()
    }
}
