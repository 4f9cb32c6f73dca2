// Numbers the records of each key: 1, 2, 3 and so on, in a header. Whoever reads them sees at once whether one is missing, or came twice.
//
// | setting | default | meaning |
// |---|---|---|
// | `header` | `count` | the name of the header, which takes the place of one that is there |
//
// It keeps the number of each key, so it runs on derived topics: `--into TOPIC --state-bytes BYTES`.

#include "millpond_guest.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static const char *name;

const char *guest_init(const mp_params *params) {
    const char *names[] = {"header"};
    mp_params_only(params, names, 1);
    name = mp_param_text(params, "header", "count");
    return mp_params_error(params);
}

const char *guest_transform(const mp_record *record, mp_output *out) {
    uint64_t count = mp_state_get_u64(record->key) + 1;
    const char *error = mp_state_put_u64(record->key, count);
    if (error != NULL) return error;
    char text[21];
    snprintf(text, sizeof text, "%" PRIu64, count);
    mp_headers all = record->headers;
    mp_header *headers = malloc(((size_t)all.count + 1) * sizeof *headers);
    if (headers == NULL) return "there is no memory for the headers";
    mp_change change = mp_changed(record);
    change.headers = (mp_headers){0};
    change.added = headers;
    while (mp_next_header(&all, &headers[change.added_count])) {
        if (!mp_equal(headers[change.added_count].name, mp_text(name))) change.added_count++;
    }
    headers[change.added_count++] = (mp_header){mp_text(name), mp_text(text)};
    mp_emit(out, &change);
    free(headers);
    return NULL;
}
