// The settings that a module was attached with.

#include "internal.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

char *mp_join(const char *first, ...) {
    size_t size = 1;
    va_list pieces;
    va_start(pieces, first);
    for (const char *piece = first; piece != NULL; piece = va_arg(pieces, const char *)) size += strlen(piece);
    va_end(pieces);
    char *text = mp_allocate(size);
    text[0] = 0;
    va_start(pieces, first);
    for (const char *piece = first; piece != NULL; piece = va_arg(pieces, const char *)) strcat(text, piece);
    va_end(pieces);
    return text;
}

static char *copy(mp_owned text) {
    char *copy = mp_allocate(text.size + 1);
    memcpy(copy, text.at, text.size);
    copy[text.size] = 0;
    return copy;
}

const char *mp_param_text(const mp_params *params, const char *name, const char *otherwise) {
    mp_bytes wanted = mp_text(name);
    for (size_t index = params->count; index-- > 0;) { // the last counts
        mp_owned found = params->pairs[2 * index];
        if (mp_equal(wanted, (mp_bytes){found.at, found.size})) return copy(params->pairs[2 * index + 1]);
    }
    return otherwise;
}

static void set_error(const mp_params *params, char *error) {
    // Settings are only ever made by the SDK, which can change them.
    mp_params *changed = (mp_params *)params;
    if (changed->error == NULL) changed->error = error;
}

static void wrong(const mp_params *params, const char *name, const char *text, const char *why) {
    set_error(params, mp_join("the setting `", name, "` can't be `", text, "`: ", why, NULL));
}

double mp_param_number(const mp_params *params, const char *name, double otherwise) {
    const char *text = mp_param_text(params, name, NULL);
    if (text == NULL) return otherwise;
    char *end;
    double number = strtod(text, &end);
    if (end == text || *end != 0 || !isfinite(number)) wrong(params, name, text, "it is not a number");
    return number;
}

int64_t mp_param_int(const mp_params *params, const char *name, int64_t otherwise) {
    const char *text = mp_param_text(params, name, NULL);
    if (text == NULL) return otherwise;
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (end == text || *end != 0 || errno != 0) wrong(params, name, text, "it is not a whole number");
    return number;
}

void mp_params_only(const mp_params *params, const char *const *names, size_t count) {
    for (size_t index = 0; index < params->count; index++) {
        mp_owned found = params->pairs[2 * index];
        bool is_known = false;
        for (size_t name = 0; name < count; name++) {
            is_known = is_known || mp_equal(mp_text(names[name]), (mp_bytes){found.at, found.size});
        }
        if (is_known) continue;
        char *there = mp_join(count == 0 ? ": this module has none" : "; there are: ", NULL);
        for (size_t name = 0; name < count; name++) there = mp_join(there, name == 0 ? "" : ", ", names[name], NULL);
        set_error(params, mp_join("there is no setting `", copy(found), "`", there, NULL));
    }
}

size_t mp_targets(const mp_params *params, const mp_target **targets) {
    *targets = params->targets;
    return params->target_count;
}

const char *mp_params_error(const mp_params *params) {
    return params->error;
}
