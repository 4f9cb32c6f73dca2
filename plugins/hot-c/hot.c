// Keeps the readings that are hotter than a limit, and marks them with a header.
//
// | setting | default | meaning |
// |---|---|---|
// | `limit` | `80` | a reading above this is kept |
// | `field` | `temperature` | the field of the JSON object that holds the reading |

#include "millpond_guest.h"

static double limit;
static const char *field;

const char *guest_init(const mp_params *params) {
    const char *names[] = {"limit", "field"};
    mp_params_only(params, names, 2);
    limit = mp_param_number(params, "limit", 80);
    field = mp_param_text(params, "field", "temperature");
    return mp_params_error(params);
}

const char *guest_transform(const mp_record *record, mp_output *out) {
    if (record->value.at == NULL) {
        mp_keep(out, record); // it deletes its key
        return NULL;
    }
    double reading;
    switch (mp_json_number(record->value, field, &reading)) {
    case MP_JSON_BROKEN: return "the value is not a JSON object";
    case MP_JSON_NUMBER:
        if (reading > limit) {
            mp_header alert = {mp_text("alert"), mp_text("hot")};
            mp_change change = mp_changed(record);
            change.added = &alert;
            change.added_count = 1;
            mp_emit(out, &change);
        }
        return NULL; // neither kept nor emitted: dropped
    default: return NULL;
    }
}
