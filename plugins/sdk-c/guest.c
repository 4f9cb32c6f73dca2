// The functions of the contract, as they are exported to the broker, over those that the guest defines. Compiled with MILLPOND_TRANSFORM,
// MILLPOND_PARTITIONER or MILLPOND_DERIVE defined, and MILLPOND_STATE in a world that has one.
//
// Results lie in memory as the component model's canonical ABI has them:
//
//   result<list, failure>   | 0 or 1 |     | address | size |                                        4 bytes each, the first at 0
//                           | 1      |     | address | size | 0 or 1: is there a record | record |   behind an error
//   tuple<u32, list<u8>>    | target | address | size |                                              one entry of what `derive` returns

#include "component_type.h"
#include "internal.h"

#include <stdlib.h>
#include <string.h>

__attribute__((import_module("millpond:plugin/log@1.0.0"), import_name("log"))) void host_log(int32_t level, const char *at, size_t size);

typedef struct {
    uint32_t is_error;
    const void *at;
    size_t size;
    uint32_t has_record;
    uint32_t record;
} result;

static result last;

void mp_log(mp_level level, const char *message) {
    host_log(level, message, strlen(message));
}

void *mp_allocate(size_t size) {
    void *bytes = malloc(size == 0 ? 1 : size);
    if (bytes == NULL) __builtin_trap(); // the broker knows that it has refused more memory, and says so
    return bytes;
}

__attribute__((export_name("cabi_realloc"))) void *cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
    (void)old_size, (void)align; // malloc's is 16, and no type of the contract needs more than 8
    void *bytes = realloc(old, size == 0 ? 1 : size);
    if (bytes == NULL) __builtin_trap();
    return bytes;
}

static result *failed(const char *message, const uint32_t *record) {
    last = (result){1, message, strlen(message), record != NULL, record == NULL ? 0 : *record};
    return &last;
}

// What it is given stays: the guest may point into it.
static result *started(mp_params settings) {
    mp_params *params = mp_allocate(sizeof *params);
    *params = settings;
    const char *error = guest_init(params);
    if (error != NULL) return failed(error, NULL);
    last = (result){0};
    return &last;
}

static uint8_t *last_section;

#ifdef MILLPOND_DERIVE
static size_t all_targets;

__attribute__((export_name("init"))) result *exported_init(mp_owned *pairs, size_t count, mp_target *targets, size_t target_count) {
    all_targets = target_count;
    return started((mp_params){.pairs = pairs, .count = count, .targets = targets, .target_count = target_count});
}
#else
__attribute__((export_name("init"))) result *exported_init(mp_owned *pairs, size_t count) {
    return started((mp_params){.pairs = pairs, .count = count});
}
#endif

#ifdef MILLPOND_TRANSFORM
static uint8_t *last_bytes;

__attribute__((export_name("transform"))) result *exported_transform(
    uint8_t *topic, size_t topic_size, int32_t has_partition, uint32_t partition, int64_t base_timestamp, uint32_t count, uint8_t *records,
    size_t size) {
    (void)topic_size, (void)has_partition, (void)partition, (void)count;
    free(topic);
    last_section = records;
    last_bytes = NULL;
    mp_output out = {.section = {records, size}, .base_timestamp = base_timestamp};
    uint32_t index = 0;
    const char *error = mp_run_transform(&out, &index);
    if (error != NULL) {
        free(out.bytes);
        return failed(error, &index);
    }
    mp_owned section = mp_finish(&out);
    last_bytes = out.bytes;
    last = (result){0, section.at, section.size, 0, 0};
    return &last;
}

__attribute__((export_name("cabi_post_transform"))) void after_transform(result *given) {
    (void)given;
    free(last_section);
    free(last_bytes);
}
#endif

#ifdef MILLPOND_PARTITIONER
static uint32_t *last_partitions;

__attribute__((export_name("partition"))) result *exported_partition(
    uint8_t *topic, size_t topic_size, int32_t has_partition, uint32_t partition, int64_t base_timestamp, uint32_t count, uint8_t *records,
    size_t size, uint32_t partition_count) {
    (void)topic_size, (void)has_partition, (void)partition;
    free(topic);
    last_section = records;
    last_partitions = mp_allocate(count * sizeof *last_partitions);
    uint32_t index = 0;
    const char *error = mp_run_partition((mp_bytes){records, size}, base_timestamp, partition_count, last_partitions, count, &index);
    if (error != NULL) return failed(error, &index);
    last = (result){0, last_partitions, index, 0, 0};
    return &last;
}

__attribute__((export_name("cabi_post_partition"))) void after_partition(result *given) {
    (void)given;
    free(last_section);
    free(last_partitions);
}
#endif

#ifdef MILLPOND_DERIVE
typedef struct {
    uint32_t target;
    mp_owned section;
} written;

static mp_outputs last_outputs;
static written *last_written;

__attribute__((export_name("derive"))) result *exported_derive(
    uint8_t *topic, size_t topic_size, uint32_t partition, int64_t base_offset, int64_t base_timestamp, uint32_t count, uint8_t *records,
    size_t size) {
    (void)topic_size, (void)partition, (void)base_offset, (void)count;
    free(topic);
    last_section = records;
    last_written = mp_allocate(all_targets * sizeof *last_written);
    last_outputs = mp_outputs_for(all_targets, (mp_bytes){records, size}, base_timestamp);
    uint32_t index = 0;
    const char *error = mp_run_derive(&last_outputs, &index);
    if (error != NULL) return failed(error, &index);
    size_t written_count = 0;
    for (uint32_t target = 0; target < last_outputs.count; target++) {
        mp_owned section = mp_finish(&last_outputs.outputs[target]);
        if (section.size > 0) last_written[written_count++] = (written){target, section};
    }
    last = (result){0, last_written, written_count, 0, 0};
    return &last;
}

__attribute__((export_name("cabi_post_derive"))) void after_derive(result *given) {
    (void)given;
    free(last_section);
    free(last_written);
    mp_outputs_free(&last_outputs);
}
#endif
