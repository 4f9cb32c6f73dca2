//! What may move between threads, and be shared by them. That this compiles is the test.

use bytes::Bytes;
use millpond::{
    Admin, AttachTransform, BrokerUrl, Client, ClientBuilder, ConsumedBatch, ConsumedRecord, ConsumedRecords, Consumer, ConsumerBuilder,
    CreateTopic, Delivery, DetachTransform, Error, Fingerprint, ModuleRef, Producer, ProducerBuilder, ProducerStats, ReadModuleLog, Record,
    RecordPlace, Start, Trust,
};

fn is_send<T: Send>(_: &T) {}

fn types_are_send_and_sync() {
    fn both<T: Send + Sync + 'static>() {}
    both::<Client>();
    both::<ClientBuilder>();
    both::<Admin>();
    both::<Producer>();
    both::<ProducerBuilder>();
    both::<ProducerStats>();
    both::<Delivery>();
    both::<Consumer>();
    both::<ConsumerBuilder>();
    both::<ConsumedBatch>();
    both::<ConsumedRecords>();
    both::<ConsumedRecord>();
    both::<Record>();
    both::<RecordPlace>();
    both::<BrokerUrl>();
    both::<Trust>();
    both::<Fingerprint>();
    both::<Error>();
}

fn futures_of_a_client_are_send(client: &Client, builder: ClientBuilder) {
    is_send(&Client::connect(""));
    is_send(&builder.connect());
    is_send(&client.close());
    is_send(&client.producer("").build());
    is_send(&client.consumer("").build());
}

fn futures_of_a_producer_are_send(producer: &Producer, delivery: &Delivery) {
    is_send(&producer.enqueue(Record::default()));
    is_send(&producer.send(Record::default()));
    is_send(&producer.flush());
    is_send(&producer.close());
    is_send(delivery);
}

fn futures_of_a_consumer_are_send(consumer: &mut Consumer) {
    is_send(&consumer.next());
    is_send(&consumer.next_batch());
    is_send(&consumer.batches());
    is_send(&consumer.seek(None, Start::End));
}

fn futures_of_an_admin_are_send(admin: &Admin, topic: CreateTopic, attachment: AttachTransform, detachment: DetachTransform) {
    is_send(&admin.broker_info());
    is_send(&admin.create_topic(topic));
    is_send(&admin.delete_topic(""));
    is_send(&admin.topics());
    is_send(&admin.topic(""));
    is_send(&admin.list_offset("", 0, Start::End));
    is_send(&admin.deploy_module("", Bytes::new()));
    is_send(&admin.modules());
    is_send(&admin.module(""));
    is_send(&admin.module_log(ReadModuleLog::default()));
    is_send(&admin.rollback_module("", None));
    is_send(&admin.delete_module(ModuleRef::current("")));
    is_send(&admin.attach(attachment));
    is_send(&admin.detach(detachment));
}

#[test]
fn whatever_a_user_holds_across_an_await_may_move_to_another_thread() {
    types_are_send_and_sync();
    // Named, so that they are compiled; calling them takes a broker.
    let _ = (futures_of_a_client_are_send, futures_of_a_producer_are_send, futures_of_a_consumer_are_send, futures_of_an_admin_are_send);
}
