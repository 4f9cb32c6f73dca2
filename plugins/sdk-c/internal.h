// What the files of the SDK share with each other and with its tests.
#pragma once

#include "millpond_guest.h"

struct mp_output {
    mp_bytes section;
    int64_t base_timestamp;
    size_t run_start, run_end; // kept records that are not copied yet
    uint8_t *bytes;
    size_t size, capacity;
};

// A text of the contract: an address and a size, as they lie in memory.
typedef struct {
    uint8_t *at;
    size_t size;
} mp_owned;

struct mp_params {
    const mp_owned *pairs; // name, value, name, value
    size_t count;          // of pairs
    char *error;
    const mp_target *targets;
    size_t target_count;
};

struct mp_outputs {
    mp_output *outputs; // one for each target
    size_t count;
    mp_output nowhere; // takes what is written to a target that there is not
    bool missed;       // whether something was
};

// Takes the record at the front of a section. False if these bytes are not a record.
bool mp_take_record(mp_bytes section, size_t *at, int64_t base_timestamp, mp_record *record);

// The bytes of an output; they belong to the caller, unless they are a stretch of the section.
mp_owned mp_finish(mp_output *out);

// Passes the records of a section to the guest; the first two take it from the outputs. NULL, or the error of the record at `index`.
const char *mp_run_transform(mp_output *out, uint32_t *index);
const char *mp_run_derive(mp_outputs *out, uint32_t *index);
const char *mp_run_partition(
    mp_bytes section, int64_t base_timestamp, uint32_t partition_count, uint32_t *partitions, uint32_t count, uint32_t *index);

// Outputs for so many targets, and their end.
mp_outputs mp_outputs_for(size_t count, mp_bytes section, int64_t base_timestamp);
void mp_outputs_free(mp_outputs *out);

// An entry, and a number of them, as they lie in memory.
typedef struct {
    mp_owned key, value;
} mp_owned_entry;

typedef struct {
    mp_owned_entry *at;
    size_t count;
} mp_owned_entries;

// option<list<u8>> and result<_, string>, as they lie in memory.
typedef struct {
    uint8_t is_some;
    mp_owned bytes;
} mp_optional;

typedef struct {
    uint8_t is_error;
    mp_owned message;
} mp_outcome;

// The state as the broker gives it, and in a native test testing.c. What they return is malloc's and the caller's.
#ifdef __wasm__
#define STATE_IMPORT(name) __attribute__((import_module("millpond:plugin/state@1.0.0"), import_name(name)))
#else
#define STATE_IMPORT(name)
#endif
STATE_IMPORT("get") void host_state_get(const uint8_t *key, size_t key_size, mp_optional *value);
STATE_IMPORT("put") void host_state_put(const uint8_t *key, size_t key_size, const uint8_t *value, size_t value_size, mp_outcome *outcome);
STATE_IMPORT("delete") void host_state_delete(const uint8_t *key, size_t key_size);
STATE_IMPORT("scan") void host_state_scan(
    const uint8_t *prefix, size_t prefix_size, uint32_t has_after, const uint8_t *after, size_t after_size, uint32_t limit,
    mp_owned_entries *entries);

// Frees what the state has returned.
void mp_state_release(void);

// As malloc, but without memory the module ends.
void *mp_allocate(size_t size);

// A text that stays, made of pieces up to a NULL.
char *mp_join(const char *first, ...);
