//! Making a job known to other processes: its record and its name.

use std::{path::Path, sync::Arc};

use rustix::{fs::renameat, io::Errno};

use super::{
    directory::{Registry, temp_record_of},
    header::RecordHeader,
    names::claim,
    record::{Record, note_line},
};
use crate::{Error, Result};

impl Record {
    /// Writes the record of a job and claims its name. Before, `prepare` makes what else the job needs in
    /// the directory and completes the header.
    pub(crate) fn publish(
        registry: &Path,
        header: RecordHeader,
        note: Option<&str>,
        prepare: impl FnOnce(&mut RecordHeader) -> Result<()>,
    ) -> Result<Record> {
        let registry = Arc::new(Registry::create(registry)?);
        let failed = |e: Errno| {
            Error::os(format!("write the record of the job into {}", registry.path.display()), e)
        };
        let file = registry.temp_record(&header.id).map_err(failed)?;
        let mut record = Record::new(registry.clone(), file, header, true);
        let prepared = prepare(&mut record.header);
        let publish = || {
            prepared?;
            let note = note.map(note_line).unwrap_or_default();
            record.append(&(record.header.text() + &note)).map_err(failed)?;
            let (temp, id) = (temp_record_of(record.id()), record.id());
            renameat(&registry.dir, temp, &registry.dir, id).map_err(failed)?;
            record.name().map_or(Ok(()), |name| claim(&registry, name, id))
        };
        match publish() {
            Ok(()) => Ok(record),
            Err(error) => {
                record.remove();
                Err(error)
            }
        }
    }
}
