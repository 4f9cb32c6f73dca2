// How a guest is called for each record of a batch. Compiled with MILLPOND_TRANSFORM, MILLPOND_PARTITIONER or MILLPOND_DERIVE defined.

#include "internal.h"

#include <stdlib.h>

#ifdef MILLPOND_STATE
#define RELEASE_STATE() mp_state_release()
#else
#define RELEASE_STATE() ((void)0)
#endif

static const char *const NO_RECORDS = "these bytes are not records";

mp_outputs mp_outputs_for(size_t count, mp_bytes section, int64_t base_timestamp) {
    mp_output empty = {.section = section, .base_timestamp = base_timestamp};
    mp_outputs out = {.outputs = mp_allocate(count * sizeof empty), .count = count, .nowhere = empty};
    for (size_t target = 0; target < count; target++) out.outputs[target] = empty;
    return out;
}

void mp_outputs_free(mp_outputs *out) {
    for (size_t target = 0; target < out->count; target++) free(out->outputs[target].bytes);
    free(out->outputs);
    free(out->nowhere.bytes);
    *out = (mp_outputs){0};
}

#ifdef MILLPOND_TRANSFORM
const char *mp_run_transform(mp_output *out, uint32_t *index) {
    size_t at = 0;
    for (*index = 0; at < out->section.size; ++*index) {
        mp_record record;
        if (!mp_take_record(out->section, &at, out->base_timestamp, &record)) return NO_RECORDS;
        RELEASE_STATE();
        const char *error = guest_transform(&record, out);
        if (error != NULL) return error;
    }
    return NULL;
}
#endif

#ifdef MILLPOND_PARTITIONER
const char *mp_run_partition(
    mp_bytes section, int64_t base_timestamp, uint32_t partition_count, uint32_t *partitions, uint32_t count, uint32_t *index) {
    size_t at = 0;
    for (*index = 0; at < section.size && *index < count; ++*index) {
        mp_record record;
        if (!mp_take_record(section, &at, base_timestamp, &record)) return NO_RECORDS;
        const char *error = guest_partition(&record, partition_count, &partitions[*index]);
        if (error != NULL) return error;
    }
    return NULL;
}
#endif

#ifdef MILLPOND_DERIVE
mp_output *mp_to(mp_outputs *out, uint32_t target) {
    if (target < out->count) return &out->outputs[target];
    out->missed = true;
    return &out->nowhere;
}

const char *mp_run_derive(mp_outputs *out, uint32_t *index) {
    mp_output source = out->nowhere;
    size_t at = 0;
    for (*index = 0; at < source.section.size; ++*index) {
        mp_record record;
        if (!mp_take_record(source.section, &at, source.base_timestamp, &record)) return NO_RECORDS;
        RELEASE_STATE();
        const char *error = guest_derive(&record, out);
        if (error == NULL && out->missed) error = "it wrote to a target that there is not: they are counted from 0, as they were named";
        if (error != NULL) return error;
    }
    return NULL;
}
#endif
