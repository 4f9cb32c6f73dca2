// What the broker does for a guest, on the machine that the guest is written on: starts it, passes records through it, keeps its state in memory.

#include "internal.h"
#include "millpond_testing.h"

#include <string.h>

enum { KEY_BYTES_MAX = 1024, ENTRY_OVERHEAD_BYTES = 64 };

void *mp_allocate(size_t size) {
    void *bytes = malloc(size == 0 ? 1 : size);
    MP_CHECK(bytes != NULL);
    return bytes;
}

void mp_log(mp_level level, const char *message) {
    const char *const levels[] = {"debug", "info", "warn", "error"};
    fprintf(stderr, "%s: %s\n", levels[level], message);
}

static mp_owned copied(const void *at, size_t size) {
    mp_owned copy = {mp_allocate(size), size};
    if (size > 0) memcpy(copy.at, at, size);
    return copy;
}

// The entries, in order of their keys.
static mp_owned_entries entries;
static size_t granted = SIZE_MAX;

static void free_entries(mp_owned_entries *some) {
    for (size_t index = 0; index < some->count; index++) {
        free(some->at[index].key.at);
        free(some->at[index].value.at);
    }
    free(some->at);
    *some = (mp_owned_entries){NULL, 0};
}

static mp_owned_entries copied_entries(const mp_owned_entry *from, size_t count) {
    mp_owned_entries copy = {mp_allocate(count * sizeof *from), count};
    for (size_t index = 0; index < count; index++) {
        mp_owned key = from[index].key, value = from[index].value;
        copy.at[index] = (mp_owned_entry){copied(key.at, key.size), copied(value.at, value.size)};
    }
    return copy;
}

void mp_test_grant_state(size_t bytes) {
    free_entries(&entries);
    granted = bytes;
}

static int compared(mp_owned one, const uint8_t *at, size_t size) {
    size_t common = one.size < size ? one.size : size;
    int order = common == 0 ? 0 : memcmp(one.at, at, common);
    return order != 0 ? order : (one.size > size) - (one.size < size);
}

// Where the first key lies that is not below this one.
static size_t place_of(const uint8_t *key, size_t size) {
    size_t place = 0;
    while (place < entries.count && compared(entries.at[place].key, key, size) < 0) place++;
    return place;
}

static bool is_at(size_t place, const uint8_t *key, size_t size) {
    return place < entries.count && compared(entries.at[place].key, key, size) == 0;
}

void host_state_get(const uint8_t *key, size_t key_size, mp_optional *value) {
    size_t place = place_of(key, key_size);
    *value = (mp_optional){0};
    if (!is_at(place, key, key_size)) return;
    mp_owned found = entries.at[place].value;
    *value = (mp_optional){1, copied(found.at, found.size)};
}

void host_state_put(const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size, mp_outcome *outcome) {
    char refusal[160] = "";
    size_t place = place_of(key, key_size), before = 0;
    bool is_there = is_at(place, key, key_size);
    for (size_t index = 0; index < entries.count; index++) {
        before += entries.at[index].key.size + entries.at[index].value.size + ENTRY_OVERHEAD_BYTES;
    }
    size_t after = before + value_size + (is_there ? 0 : key_size + ENTRY_OVERHEAD_BYTES) - (is_there ? entries.at[place].value.size : 0);
    if (key_size > KEY_BYTES_MAX) {
        snprintf(refusal, sizeof refusal, "a key of %zu bytes is too long, %d are allowed", key_size, KEY_BYTES_MAX);
    } else if (after > granted && after > before) {
        const char *format = "the state is full: it would have %zu bytes, and %zu are granted (`--state-bytes`)";
        snprintf(refusal, sizeof refusal, format, after, granted);
    }
    *outcome = (mp_outcome){0};
    if (refusal[0] != 0) {
        *outcome = (mp_outcome){1, copied(refusal, strlen(refusal))};
        return;
    }
    if (is_there) {
        free(entries.at[place].value.at);
    } else {
        entries.at = realloc(entries.at, (entries.count + 1) * sizeof *entries.at);
        MP_CHECK(entries.at != NULL);
        memmove(entries.at + place + 1, entries.at + place, (entries.count - place) * sizeof *entries.at);
        entries.at[place].key = copied(key, key_size);
        entries.count++;
    }
    entries.at[place].value = copied(value, value_size);
}

void host_state_delete(const uint8_t *key, size_t key_size) {
    size_t place = place_of(key, key_size);
    if (!is_at(place, key, key_size)) return;
    free(entries.at[place].key.at);
    free(entries.at[place].value.at);
    entries.count--;
    memmove(entries.at + place, entries.at + place + 1, (entries.count - place) * sizeof *entries.at);
}

void host_state_scan(
    const uint8_t *prefix, size_t prefix_size, uint32_t has_after, const uint8_t *after, size_t after_size, uint32_t limit,
    mp_owned_entries *found) {
    size_t from = place_of(prefix, prefix_size);
    while (has_after && from < entries.count && compared(entries.at[from].key, after, after_size) <= 0) from++;
    size_t to = from;
    for (; to < entries.count && to - from < limit; to++) {
        mp_owned key = entries.at[to].key;
        if (key.size < prefix_size || (prefix_size > 0 && memcmp(key.at, prefix, prefix_size) != 0)) break;
    }
    *found = copied_entries(entries.at == NULL ? NULL : entries.at + from, to - from);
}

static mp_owned text_of(const char *text) {
    return (mp_owned){(uint8_t *)text, strlen(text)};
}

static size_t all_targets;

const char *mp_test_start(const char *const *settings, const char *const *targets) {
    size_t count = 0;
    while (settings != NULL && settings[count] != NULL) count++;
    mp_owned *pairs = mp_allocate(count * sizeof *pairs);
    for (size_t index = 0; index < count; index++) pairs[index] = text_of(settings[index]);
    for (all_targets = 0; targets != NULL && targets[all_targets] != NULL;) all_targets++;
    mp_target *named = mp_allocate(all_targets * sizeof *named);
    for (size_t index = 0; index < all_targets; index++) named[index] = (mp_target){mp_text(targets[index]), 4};
    mp_params *params = mp_allocate(sizeof *params);
    *params = (mp_params){.pairs = pairs, .count = count / 2, .targets = named, .target_count = all_targets};
    return guest_init(params);
}

static mp_owned section_of(const mp_change *input, size_t count) {
    mp_output out = {.base_timestamp = MP_TEST_TIMESTAMP};
    for (size_t index = 0; index < count; index++) {
        mp_change change = input[index];
        if (change.timestamp == 0) change.timestamp = MP_TEST_TIMESTAMP;
        change.offset_delta = (int32_t)index;
        mp_emit(&out, &change);
    }
    return mp_finish(&out);
}

#if defined MILLPOND_TRANSFORM || defined MILLPOND_DERIVE
// The bytes that records which came out lie in.
struct mp_written_bytes {
    mp_owned source;
    mp_outputs outputs;
};

static void take_records(mp_written *written, uint32_t target, mp_owned section) {
    for (size_t at = 0; at < section.size; written->count++) {
        mp_record record;
        MP_CHECK(mp_take_record((mp_bytes){section.at, section.size}, &at, MP_TEST_TIMESTAMP, &record));
        written->records = realloc(written->records, (written->count + 1) * sizeof *written->records);
        MP_CHECK(written->records != NULL);
        written->records[written->count] = (mp_written_record){target, record};
    }
}

mp_written mp_test_run(const mp_change *input, size_t count) {
    mp_owned_entries before = copied_entries(entries.at, entries.count);
    mp_written written = {.bytes = mp_allocate(sizeof *written.bytes)};
    mp_owned source = section_of(input, count);
#ifdef MILLPOND_DERIVE
    mp_outputs outputs = mp_outputs_for(all_targets, (mp_bytes){source.at, source.size}, MP_TEST_TIMESTAMP);
    written.error = mp_run_derive(&outputs, &written.failed);
#else
    mp_outputs outputs = mp_outputs_for(1, (mp_bytes){source.at, source.size}, MP_TEST_TIMESTAMP);
    written.error = mp_run_transform(&outputs.outputs[0], &written.failed);
#endif
    *written.bytes = (struct mp_written_bytes){source, outputs};
    if (written.error != NULL) {
        free_entries(&entries);
        entries = before;
        return written;
    }
    free_entries(&before);
    for (uint32_t target = 0; target < outputs.count; target++) {
        take_records(&written, target, mp_finish(&written.bytes->outputs.outputs[target]));
    }
    return written;
}

void mp_test_free(mp_written *written) {
    free(written->records);
    free(written->bytes->source.at);
    mp_outputs_free(&written->bytes->outputs);
    free(written->bytes);
    *written = (mp_written){0};
}
#endif

#ifdef MILLPOND_PARTITIONER
const char *mp_test_place(const mp_change *input, size_t count, uint32_t partition_count, uint32_t *partitions) {
    mp_owned source = section_of(input, count);
    uint32_t index;
    mp_bytes section = {source.at, source.size};
    const char *error = mp_run_partition(section, MP_TEST_TIMESTAMP, partition_count, partitions, (uint32_t)count, &index);
    free(source.at);
    return error;
}
#endif
