//! Keeps every record as it came: it measures what the way to a guest and back costs.
//!
//! | setting | default | meaning |
//! |---|---|---|
//! | `drop_every` | `0` | drops one record of so many, by its place in the batch, to measure a filter; `0` drops none |

use millpond_guest::{Output, Params, Record, Transform, transform};

/// The transform.
#[derive(Debug)]
pub struct Identity {
    drop_every: i32,
}

impl Transform for Identity {
    fn new(params: &Params) -> Result<Identity, String> {
        params.expect_only(&["drop_every"])?;
        Ok(Identity { drop_every: params.parse("drop_every", 0)? })
    }

    fn transform(&mut self, record: &Record<'_>, out: &mut Output<'_>) -> Result<(), String> {
        if self.drop_every == 0 || record.offset_delta() % self.drop_every != 0 {
            out.keep(record);
        }
        Ok(())
    }
}

transform!(Identity);

#[cfg(test)]
mod tests {
    use super::Identity;
    use millpond_guest::testing::{Batch, records, transform};

    #[test]
    fn every_record_stays_as_it_is() {
        let batch = Batch::new().record(Some(b"k"), Some(b"v"), &[("h", Some(b"x")), ("n", None)]).record(None, None, &[]);
        assert_eq!(transform::<Identity>(&[], &batch), records(&batch.section()));
        assert_eq!(transform::<Identity>(&[], &Batch::new()), Ok(vec![]));
    }

    #[test]
    fn one_of_so_many_is_dropped() {
        let batch = Batch::of_values(["a", "b", "c", "d", "e"]);
        let kept = transform::<Identity>(&[("drop_every", "2")], &batch).expect("it runs");
        assert_eq!(kept.iter().map(|record| record.offset_delta).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(transform::<Identity>(&[("drop_every", "1")], &batch), Ok(vec![]));
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for setting in [("drop_evry", "2"), ("drop_every", "two")] {
            let error = transform::<Identity>(&[setting], &Batch::new()).expect_err("no such setting");
            assert!(error.contains(setting.0), "{error}");
        }
    }
}
