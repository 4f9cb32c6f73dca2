//! Metrics of modules, one series for each place where one is attached.
//!
//! The labels are the topic, the place in its path (`on`, and `view` on fetch), the module, and the version that runs there now: as many as
//! there are attachments, times a fixed number for `kind`, `outcome` and `le`. Another version goes on with the counts of the one before it,
//! under its own number.

use super::{
    Family, count, counter, counter_of_some, gauge, gauge_of_some,
    text::{Kind, Page, Seconds},
};
use millpond_protocol::message::{AttachmentStatus, DerivedPartition, DerivedStatus, TopicInfo};
use std::{fmt::Display, io};
use tokio::io::AsyncWrite;

/// Writes all of them.
pub(super) async fn write<W: AsyncWrite + Unpin>(page: &mut Page<'_, W>, topics: &[TopicInfo]) -> io::Result<()> {
    for family in TRANSFORM {
        page.family(family.name, family.kind, family.help);
        for (topic, module) in attachments(topics) {
            if let Some(value) = family.value(module) {
                page.sample(family.name, &labels(topic, module, None), value);
            }
            page.relieve().await?;
        }
    }
    failures(page, topics).await?;
    failed_records(page, topics).await?;
    times(page, topics).await
}

async fn failures<W: AsyncWrite + Unpin>(page: &mut Page<'_, W>, topics: &[TopicInfo]) -> io::Result<()> {
    const NAME: &str = "millpond_transform_failures_total";
    let help = "Batches that the module failed on, by the error code of what went wrong first; `other` is not the module's own.";
    page.family(NAME, Kind::Counter, help);
    for (topic, module) in attachments(topics) {
        for (kind, batches) in &module.work.failures_by_kind {
            page.sample(NAME, &labels(topic, module, Some(("kind", kind))), batches);
        }
        page.relieve().await?;
    }
    Ok(())
}

async fn failed_records<W: AsyncWrite + Unpin>(page: &mut Page<'_, W>, topics: &[TopicInfo]) -> io::Result<()> {
    const NAME: &str = "millpond_transform_records_failed_total";
    let help = "Records that did not get through because the module failed on them (skipped, dead_lettered) or on their batch (rejected).";
    page.family(NAME, Kind::Counter, help);
    for (topic, module) in attachments(topics) {
        let dead_lettered = module.work.records_dead_lettered;
        let skipped = module.records_failed.saturating_sub(dead_lettered);
        for (outcome, records) in [("skipped", skipped), ("dead_lettered", dead_lettered), ("rejected", module.work.records_rejected)] {
            page.sample(NAME, &labels(topic, module, Some(("outcome", &outcome))), records);
        }
        page.relieve().await?;
    }
    Ok(())
}

async fn times<W: AsyncWrite + Unpin>(page: &mut Page<'_, W>, topics: &[TopicInfo]) -> io::Result<()> {
    let help = "How long batches took in the module, by the clock; where it failed, with the search for the records at fault.";
    page.family(TIMES, Kind::Histogram, help);
    for (topic, module) in attachments(topics) {
        let Some(times) = &module.work.batch_times else { continue };
        for bucket in &times.buckets {
            page.sample(TIMES_BUCKET, &labels(topic, module, Some(("le", &Seconds(bucket.le_us)))), bucket.batches);
        }
        page.sample(TIMES_BUCKET, &labels(topic, module, Some(("le", &"+Inf"))), times.batches);
        page.sample(TIMES_SUM, &labels(topic, module, None), Seconds(times.sum_us));
        page.sample(TIMES_COUNT, &labels(topic, module, None), times.batches);
        page.relieve().await?;
    }
    Ok(())
}

fn attachments(topics: &[TopicInfo]) -> impl Iterator<Item = (&TopicInfo, &AttachmentStatus)> {
    topics.iter().flat_map(|topic| topic.attachments.iter().map(move |module| (topic, module)))
}

/// Which attachment, and what more there is to tell a series from others.
fn labels<'a>(
    topic: &'a TopicInfo,
    module: &'a AttachmentStatus,
    more: Option<(&'a str, &'a dyn Display)>,
) -> Vec<(&'a str, &'a dyn Display)> {
    let mut labels: Vec<(&str, &dyn Display)> = vec![("topic", &topic.name), ("on", &module.on)];
    labels.extend(module.view.as_ref().map(|view| ("view", view as &dyn Display)));
    labels.push(("module", &module.module));
    // One that was lost has none.
    labels.push(("version", module.version.as_ref().map_or(&"" as &dyn Display, |version| version)));
    labels.extend(more);
    labels
}

const TRANSFORM: &[Family<AttachmentStatus>] = &[
    counter("millpond_transform_batches_total", "Batches that the module was given.", |module| module.batches.into()),
    counter("millpond_transform_records_in_total", "Records that were given to the module.", |module| module.records_in.into()),
    counter("millpond_transform_records_out_total", "Records that the module gave back.", |module| module.records_out.into()),
    counter("millpond_transform_records_dropped_total", "Records that the module left out.", |module| module.records_dropped.into()),
    counter("millpond_transform_records_changed_total", "Records that the module gave back with other bytes.", |module| {
        module.records_changed.into()
    }),
    gauge(
        "millpond_transform_paused",
        "1 while the module does not run: it has failed too often, or could not be loaded. `millpond topic describe` says why.",
        |module| module.paused.is_some().into(),
    ),
    gauge("millpond_transform_memory_peak_bytes", "The most memory that an instance of the module had after a batch.", |module| {
        module.work.memory_bytes_peak.into()
    }),
    gauge(
        "millpond_transform_busy_seconds",
        "How long the module is at the batch that it is at for longest; 0 below a second.",
        |module| (module.work.busy_ms / 1_000).into(),
    ),
    gauge_of_some("millpond_transform_memory_limit_bytes", "The most memory that an instance of the module may have.", |module| {
        module.limits.memory_bytes.map(i128::from)
    }),
    gauge_of_some(
        "millpond_derived_lag_offsets",
        "Offsets of the source that the module has not come to yet, where it derives other topics; all partitions together, as below.",
        |module| derived(module, |partition| partition.lag),
    ),
    counter_of_some(
        "millpond_derived_skipped_offsets_total",
        "Offsets that were gone, or damaged, before the module came to them.",
        |module| derived(module, |partition| partition.skipped),
    ),
    gauge_of_some("millpond_derived_held_up_partitions", "Partitions of the source on which it does not go on at this moment.", |module| {
        derived(module, |partition| partition.error.is_some().into())
    }),
    gauge_of_some("millpond_derived_state_bytes", "What the module keeps as its state.", |module| {
        derived(module, |partition| partition.state_bytes)
    }),
    gauge_of_some("millpond_derived_file_bytes", "Its state and its journal on the disk, which no quota counts.", |module| {
        derived(module, |partition| partition.file_bytes)
    }),
    gauge_of_some("millpond_derived_file_limit_bytes", "The most that these may come to.", |module| {
        let of_each = |derived: &DerivedStatus| i128::from(derived.file_bytes_max) * count(derived.partitions.len());
        module.derived.as_ref().map(of_each)
    }),
];

/// A sum over the partitions of the source of a module that derives topics.
fn derived(module: &AttachmentStatus, value: fn(&DerivedPartition) -> u64) -> Option<i128> {
    let sum = |derived: &DerivedStatus| derived.partitions.iter().map(|partition| i128::from(value(partition))).sum();
    module.derived.as_ref().map(sum)
}

const TIMES: &str = "millpond_transform_batch_seconds";
const TIMES_BUCKET: &str = "millpond_transform_batch_seconds_bucket";
const TIMES_SUM: &str = "millpond_transform_batch_seconds_sum";
const TIMES_COUNT: &str = "millpond_transform_batch_seconds_count";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        request::{Head, Method},
        response::Body,
    };
    use millpond_protocol::message::{AttachPoint, AttachmentWork, BatchTimes, TimeBucket};

    async fn page(topics: &[TopicInfo]) -> String {
        let head = Head { method: Method::Get, path: "/".to_owned(), is_http_11: false, authority: None };
        let mut out = Vec::new();
        let body = Body::begin(&mut out, &head, "text/plain").await.expect("a Vec takes it").expect("a body is asked for");
        let mut page = Page::new(body);
        write(&mut page, topics).await.expect("a Vec takes it");
        page.end().await.expect("a Vec takes it");
        let text = String::from_utf8(out).expect("text");
        text.split_once("\r\n\r\n").expect("a body").1.to_owned()
    }

    #[tokio::test]
    async fn what_derives_topics_has_its_lag_and_its_files_and_nothing_else_has() {
        let partition = |lag, error: Option<&str>| DerivedPartition {
            lag,
            skipped: 1,
            state_bytes: 10,
            file_bytes: 100,
            error: error.map(str::to_owned),
            ..DerivedPartition::default()
        };
        let derived = DerivedStatus {
            file_bytes_max: 1_000,
            partitions: vec![partition(3, None), partition(4, Some("why"))],
            ..DerivedStatus::default()
        };
        let on_derive = AttachmentStatus { derived: Some(derived), ..AttachmentStatus::new("m", AttachPoint::Derive) };
        let attachments = vec![AttachmentStatus::new("m", AttachPoint::Produce), on_derive];
        let text = page(&[TopicInfo { name: "t".to_owned(), attachments, ..TopicInfo::default() }]).await;
        let found: Vec<_> = text.lines().filter(|line| line.starts_with("millpond_derived_")).collect();
        let expected = [
            ("lag_offsets", 7),
            ("skipped_offsets_total", 2),
            ("held_up_partitions", 1),
            ("state_bytes", 20),
            ("file_bytes", 200),
            ("file_limit_bytes", 2_000),
        ];
        let place = "topic=\"t\",on=\"derive\",module=\"m\",version=\"\"";
        assert_eq!(found, expected.map(|(name, value)| format!("millpond_derived_{name}{{{place}}} {value}")));
    }

    #[tokio::test]
    async fn every_place_of_a_module_has_series_of_its_own() {
        let buckets = vec![TimeBucket { le_us: 50, batches: 2 }, TimeBucket { le_us: 2_500, batches: 3 }];
        let work = AttachmentWork {
            records_rejected: 4,
            records_dead_lettered: 5,
            failures_by_kind: [("guest_trapped", 6), ("other", 0)].map(|(kind, batches)| (kind.to_owned(), batches)).into(),
            memory_bytes_peak: 7,
            busy_ms: 12_345,
            batch_times: Some(BatchTimes { batches: 4, sum_us: 1_234_500, buckets }),
        };
        let on_produce =
            AttachmentStatus { version: Some(2), records_failed: 8, batches: 4, work, ..AttachmentStatus::new("m", AttachPoint::Produce) };
        let view = |name: &str| AttachmentStatus {
            view: Some(name.to_owned()),
            paused: Some("why".to_owned()),
            ..AttachmentStatus::new("m", AttachPoint::Fetch)
        };
        let topic = TopicInfo { name: "t".to_owned(), attachments: vec![on_produce, view("a"), view("b")], ..TopicInfo::default() };
        let text = page(&[topic]).await;
        let place = "topic=\"t\",on=\"produce\",module=\"m\",version=\"2\"";
        for line in [
            "# TYPE millpond_transform_batch_seconds histogram".to_owned(),
            format!("millpond_transform_batches_total{{{place}}} 4"),
            format!("millpond_transform_failures_total{{{place},kind=\"guest_trapped\"}} 6"),
            format!("millpond_transform_failures_total{{{place},kind=\"other\"}} 0"),
            format!("millpond_transform_records_failed_total{{{place},outcome=\"skipped\"}} 3"),
            format!("millpond_transform_records_failed_total{{{place},outcome=\"dead_lettered\"}} 5"),
            format!("millpond_transform_records_failed_total{{{place},outcome=\"rejected\"}} 4"),
            format!("millpond_transform_memory_peak_bytes{{{place}}} 7"),
            format!("millpond_transform_busy_seconds{{{place}}} 12"),
            format!("millpond_transform_paused{{{place}}} 0"),
            format!("millpond_transform_batch_seconds_bucket{{{place},le=\"0.00005\"}} 2"),
            format!("millpond_transform_batch_seconds_bucket{{{place},le=\"0.0025\"}} 3"),
            format!("millpond_transform_batch_seconds_bucket{{{place},le=\"+Inf\"}} 4"),
            format!("millpond_transform_batch_seconds_sum{{{place}}} 1.2345"),
            format!("millpond_transform_batch_seconds_count{{{place}}} 4"),
            "millpond_transform_paused{topic=\"t\",on=\"fetch\",view=\"a\",module=\"m\",version=\"\"} 1".to_owned(),
            "millpond_transform_paused{topic=\"t\",on=\"fetch\",view=\"b\",module=\"m\",version=\"\"} 1".to_owned(),
        ] {
            assert!(text.lines().any(|other| other == line), "`{line}` is not in\n{text}");
        }
        let mut series: Vec<&str> =
            text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect();
        let count = series.len();
        series.sort_unstable();
        series.dedup();
        assert_eq!(series.len(), count, "no series is there twice");
    }
}
