//! Places all readings of a device in one partition.
//!
//! | setting | default | meaning |
//! |---|---|---|
//! | `field` | `device` | the field of the JSON object that names the device |
//!
//! The name is hashed as Kafka hashes keys (murmur2), so a reading lies where a Kafka client would put it if the device were its key.
//! A record without the field, or that is not a JSON object, goes by its key in the same way; one without a key too goes to partition 0.

use millpond_guest::{Params, Partition, Record, json, partition_of, partitioner};

/// The partitioner.
#[derive(Debug)]
pub struct ByDevice {
    field: String,
}

impl Partition for ByDevice {
    fn new(params: &Params) -> Result<ByDevice, String> {
        params.expect_only(&["field"])?;
        Ok(ByDevice { field: params.get("field").unwrap_or("device").to_owned() })
    }

    fn partition(&mut self, record: &Record<'_>, partition_count: u32) -> u32 {
        let object = json::object(record.value().unwrap_or_default());
        match (object.ok().and_then(|object| object.get(&self.field)), record.key()) {
            (Some(device), _) => match device.string() {
                Some(name) => partition_of(name.as_bytes(), partition_count),
                None => partition_of(device.text().as_bytes(), partition_count),
            },
            (None, Some(key)) => partition_of(key, partition_count),
            (None, None) => 0,
        }
    }
}

partitioner!(ByDevice);

#[cfg(test)]
mod tests {
    use super::ByDevice;
    use millpond_guest::partition_of;
    use millpond_guest::testing::{Batch, partition};

    #[test]
    fn readings_of_one_device_stay_together_and_devices_spread() {
        let values: Vec<String> = (0..300).map(|n| format!(r#"{{"cpu_percent":{n},"device":"pump-{}"}}"#, n % 30)).collect();
        let partitions = partition::<ByDevice>(&[], &Batch::of_values(&values), 4).expect("it runs");
        for (index, found) in partitions.iter().enumerate() {
            assert_eq!(*found, partitions[index % 30], "reading {index}");
        }
        for wanted in 0..4 {
            assert!(partitions.contains(&wanted), "nothing in partition {wanted}");
        }
    }

    #[test]
    fn the_place_is_that_of_a_kafka_key() {
        let batch = Batch::of_values([r#"{"device":"pump-3"}"#, r#"{"device":"p\u0075mp-3"}"#, r#"{"device":17}"#]);
        let expected = [b"pump-3", b"pump-3", &b"17"[..]].map(|key| partition_of(key, 12));
        assert_eq!(partition::<ByDevice>(&[], &batch, 12), Ok(expected.to_vec()));
    }

    #[test]
    fn without_a_device_the_key_decides_and_without_a_key_it_is_partition_0() {
        let batch = Batch::new()
            .record(Some(b"key"), Some(br#"{"other":1}"#), &[])
            .record(Some(b"key"), Some(br#"{"device":"pump-3", broken"#), &[])
            .record(Some(b"key"), None, &[])
            .record(None, Some(b"text"), &[]);
        let by_key = partition_of(b"key", 9);
        assert_ne!(by_key, 0);
        assert_eq!(partition::<ByDevice>(&[], &batch, 9), Ok(vec![by_key, by_key, by_key, 0]));
    }

    #[test]
    fn the_field_can_be_chosen() {
        let batch = Batch::of_values([r#"{"device":"a","site":"b"}"#]);
        assert_eq!(partition::<ByDevice>(&[("field", "site")], &batch, 100), Ok(vec![partition_of(b"b", 100)]));
    }
}
