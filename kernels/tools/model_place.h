/* model_place.h - where a model lies: a model file, a bundle (tar), or a folder that holds model.ebm. */
#ifndef EB_MODEL_PLACE_H
#define EB_MODEL_PLACE_H

#include <stdint.h>

typedef struct model_place {
    char path[4096];
    uint64_t offset, size; /* size 0: to the end of the file */
} model_place;

/* 0, or -1 with a text in error [256]. */
int find_model(const char *given, model_place *out, char *error);

#endif
