/* qemu_count.c - a plugin for qemu's user mode: how often each guest instruction was executed, "address count" a line.
 * Built by bench/ukernels.py against no header: these are the few declarations of qemu's plugin API that it takes. */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define EXPORT __attribute__((visibility("default")))

/* qemu-plugin.h, API version 1 (qemu 4.2 and later): arguments that are not looked at are void *. */
typedef uint64_t qemu_plugin_id_t;
typedef struct qemu_plugin_tb qemu_plugin_tb;
typedef struct qemu_plugin_insn qemu_plugin_insn;
enum { QEMU_PLUGIN_INLINE_ADD_U64 = 0 };
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, void (*call)(qemu_plugin_id_t, qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(qemu_plugin_tb *tb, int op, void *counter, uint64_t add);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, void (*call)(qemu_plugin_id_t, void *), void *data);
size_t qemu_plugin_tb_n_insns(const qemu_plugin_tb *tb);
qemu_plugin_insn *qemu_plugin_tb_get_insn(const qemu_plugin_tb *tb, size_t index);
uint64_t qemu_plugin_insn_vaddr(const qemu_plugin_insn *instruction);

EXPORT int qemu_plugin_version = 1;

/* A translated block. One that is translated twice stands here twice: its counts are added up by the reader. */
typedef struct block {
    uint64_t executed;
    struct block *next;
    size_t n;
    uint64_t addresses[];
} block;

static block *blocks;
static const char *path;

static void translated(qemu_plugin_id_t id, qemu_plugin_tb *tb) {
    (void)id;
    const size_t n = qemu_plugin_tb_n_insns(tb);
    block *b = calloc(1, sizeof *b + n * sizeof b->addresses[0]);
    if (!b)
        abort();
    b->n = n;
    for (size_t i = 0; i < n; i++)
        b->addresses[i] = qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(tb, i));
    b->next = blocks;
    blocks = b;
    qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64, &b->executed, 1);
}

static void at_exit(qemu_plugin_id_t id, void *data) {
    (void)id, (void)data;
    FILE *out = fopen(path, "w");
    if (!out)
        return;
    for (const block *b = blocks; b; b = b->next)
        for (size_t i = 0; b->executed && i < b->n; i++)
            fprintf(out, "%" PRIx64 " %" PRIu64 "\n", b->addresses[i], b->executed);
    fclose(out);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv) {
    (void)info;
    if (argc != 1)
        return 1;
    for (path = argv[0]; *path && *path != '='; path++) /* out=PATH */
        ;
    path += *path == '=';
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, at_exit, NULL);
    return 0;
}
