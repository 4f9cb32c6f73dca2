//! Places what happens near each other in one partition, by the geohash of its coordinates.
//!
//! | setting | default | meaning |
//! |---|---|---|
//! | `lat` | `lat` | path of the latitude in the JSON value, in degrees from -90 to 90 |
//! | `lon` | `lon` | path of the longitude, in degrees from -180 to 180 |
//! | `precision` | `5` | characters of the geohash, 1 to 12: 5 are cells of 4.9 km by 4.9 km at the equator |
//!
//! The geohash is hashed as Kafka hashes keys (murmur2), so a record lies where a Kafka client would put it if the geohash were its key. A
//! record without both coordinates, with others than there are on earth, or that is not a JSON object, goes by its key in the same way; one
//! without a key too goes to partition 0.

mod geohash;

use millpond_guest::json::{self, Path};
use millpond_guest::{Params, Partition, Record, partition_of, partitioner};

/// The partitioner.
#[derive(Debug)]
pub struct ByGeohash {
    lat: Path,
    lon: Path,
    precision: usize,
}

impl Partition for ByGeohash {
    fn new(params: &Params) -> Result<ByGeohash, String> {
        params.expect_only(&["lat", "lon", "precision"])?;
        let path =
            |name| params.get(name).unwrap_or(name).parse::<Path>().map_err(|error| format!("the setting `{name}` is no path: {error}"));
        let precision = params.parse("precision", PRECISION_DEFAULT)?;
        if !(1..=geohash::CHARACTERS_MAX).contains(&precision) {
            return Err(format!("the setting `precision` is {precision}, a geohash has 1 to {} characters", geohash::CHARACTERS_MAX));
        }
        Ok(ByGeohash { lat: path("lat")?, lon: path("lon")?, precision })
    }

    fn partition(&mut self, record: &Record<'_>, partition_count: u32) -> u32 {
        match (self.geohash(record.value().unwrap_or_default()), record.key()) {
            (Some(geohash), _) => partition_of(&geohash[..self.precision], partition_count),
            (None, Some(key)) => partition_of(key, partition_count),
            (None, None) => 0,
        }
    }
}

impl ByGeohash {
    fn geohash(&self, value: &[u8]) -> Option<[u8; geohash::CHARACTERS_MAX]> {
        let object = json::object(value).ok()?;
        geohash::of(object.at(&self.lat)?.number()?, object.at(&self.lon)?.number()?)
    }
}

/// Cells as large as a town.
const PRECISION_DEFAULT: usize = 5;

partitioner!(ByGeohash);

#[cfg(test)]
mod tests {
    use super::ByGeohash;
    use millpond_guest::partition_of;
    use millpond_guest::testing::{Batch, partition};

    fn place(params: &[(&str, &str)], values: &[&str]) -> Vec<u32> {
        partition::<ByGeohash>(params, &Batch::of_values(values), 1000).expect("it runs")
    }

    #[test]
    fn what_is_near_lies_together_and_the_place_is_that_of_a_kafka_key() {
        let values = [r#"{"lat":57.64911,"lon":10.40744}"#, r#"{"lon":1.041e1,"lat":57.65}"#, r#"{"lat":-25.4,"lon":-49.3}"#];
        let found = place(&[], &values);
        assert_eq!(found[..2], [partition_of(b"u4pru", 1000); 2]);
        assert_ne!(found[0], found[2]);
        assert_eq!(place(&[("precision", "11")], &values[..1]), [partition_of(b"u4pruydqqvj", 1000)]);
    }

    #[test]
    fn coordinates_can_lie_anywhere_in_the_value() {
        let params = [("lat", "gps.position[1]"), ("lon", "gps.position[0]"), ("precision", "3")];
        assert_eq!(place(&params, &[r#"{"gps":{"position":[10.40744,57.64911]}}"#]), [partition_of(b"u4p", 1000)]);
    }

    #[test]
    fn without_coordinates_the_key_decides_and_without_a_key_it_is_partition_0() {
        let values = [
            r#"{"lat":57.6}"#,
            r#"{"lat":"57.6","lon":"10.4"}"#,
            r#"{"lat":90.1,"lon":10.4}"#,
            r#"{"lat":1,"lon":-180.1}"#,
            r#"{"lat":null,"lon":1}"#,
            r#"{"lat":1e999,"lon":1}"#,
            "text",
        ];
        assert_eq!(place(&[], &values), [0; 7]);
        let batch = Batch::new().record(Some(b"key"), Some(values[0].as_bytes()), &[]).record(Some(b"key"), None, &[]);
        assert_eq!(partition::<ByGeohash>(&[], &batch, 1000), Ok(vec![partition_of(b"key", 1000); 2]));
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for (params, words) in [
            ([("precision", "0")], "the setting `precision` is 0, a geohash has 1 to 12 characters"),
            ([("precision", "13")], "is 13"),
            ([("precision", "x")], "the setting `precision` can't be `x`"),
            ([("lat", "a..b")], "the setting `lat` is no path"),
            ([("latitude", "a")], "there is no setting `latitude`; there are: lat, lon, precision"),
        ] {
            let error = partition::<ByGeohash>(&params, &Batch::new(), 1).expect_err("it makes no sense");
            assert!(error.contains(words), "{params:?}: {error}");
        }
    }

    #[test]
    fn the_readme_tells_the_truth() {
        let block = include_str!("../README.md").split("```\n").nth(1).expect("the example");
        for line in block.lines() {
            let (value, geohash) = line.rsplit_once("  ").expect("two columns");
            assert_eq!(place(&[], &[value.trim_end()]), [partition_of(geohash.as_bytes(), 1000)], "{line}");
        }
    }
}
