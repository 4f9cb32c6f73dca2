//! The module of the README: keeps the readings that are hotter than a limit.

use millpond_guest::{Output, Params, Record, Transform, json, transform};

struct Hot {
    limit: f64,
}

impl Transform for Hot {
    fn new(params: &Params) -> Result<Hot, String> {
        Ok(Hot { limit: params.parse("limit", 80.0)? })
    }

    fn transform(&mut self, record: &Record<'_>, out: &mut Output<'_>) -> Result<(), String> {
        let reading = json::object(record.value().unwrap_or_default()).map_err(|error| error.to_string())?;
        let celsius: Option<f64> = reading.get("celsius").and_then(|field| field.text().parse().ok());
        if celsius > Some(self.limit) {
            out.keep(record);
        }
        Ok(())
    }
}

transform!(Hot);
