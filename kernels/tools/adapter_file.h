/* adapter_file.h - an adapter file for eb_adapter_open(). */
#ifndef EB_ADAPTER_FILE_H
#define EB_ADAPTER_FILE_H

#include "edgebit.h"

typedef struct adapter_file {
    void *block; /* free() takes it, once the adapter is closed */
    eb_adapter *adapter;
} adapter_file;

/* Ends the program where it cannot be read or is not for the model. */
adapter_file open_adapter_file(const eb_model *model, const char *path);

#endif
