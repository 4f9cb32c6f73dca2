//! Keeps the readings that are hotter than a limit, and marks them with a header.
//!
//! | setting | default | meaning |
//! |---|---|---|
//! | `limit` | `80` | a reading above this is kept |
//! | `field` | `temperature` | the field of the JSON object that holds the reading |

use millpond_guest::{Output, Params, Record, Transform, json, transform};

/// The transform, with its settings.
pub struct Hot {
    limit: f64,
    field: String,
}

impl Transform for Hot {
    fn new(params: &Params) -> Result<Hot, String> {
        params.expect_only(&["limit", "field"])?;
        Ok(Hot { limit: params.parse("limit", 80.0)?, field: params.get("field").unwrap_or("temperature").to_owned() })
    }

    fn transform(&mut self, record: &Record<'_>, out: &mut Output<'_>) -> Result<(), String> {
        let Some(value) = record.value() else {
            out.keep(record); // it deletes its key
            return Ok(());
        };
        let reading = json::object(value).map_err(|_| "the value is not a JSON object")?;
        let celsius = reading.get(&self.field).and_then(|field| field.number());
        if celsius > Some(self.limit) {
            let headers: Vec<_> = record.headers().chain([("alert", Some(&b"hot"[..]))]).collect();
            out.emit(&record.change().with_headers(&headers));
        } // neither kept nor emitted: dropped
        Ok(())
    }
}

transform!(Hot);

#[cfg(test)]
mod tests {
    use super::Hot;
    use millpond_guest::testing::{Batch, transform};

    #[test]
    fn hot_readings_are_kept_and_marked() {
        let batch = Batch::of_values([r#"{"temperature":81}"#, r#"{"temperature":80}"#, r#"{"temperature":"hot"}"#]);
        let stored = transform::<Hot>(&[], &batch).expect("it runs");
        assert_eq!(stored.len(), 1);
        assert_eq!(stored[0].headers, [("alert".to_owned(), Some(b"hot".to_vec()))]);
    }

    #[test]
    fn settings_choose_limit_and_field() {
        let batch = Batch::of_values([r#"{"celsius":81}"#, r#"{"celsius":20.5}"#]);
        let stored = transform::<Hot>(&[("limit", "20"), ("field", "celsius")], &batch).expect("it runs");
        assert_eq!(stored.len(), 2);
        assert!(transform::<Hot>(&[("limit", "ten")], &batch).is_err());
    }

    #[test]
    fn what_is_no_object_fails_its_batch() {
        let error = transform::<Hot>(&[], &Batch::of_values(["{}", "[1]"])).expect_err("no object");
        assert_eq!(error, "record 1: the value is not a JSON object");
    }
}
