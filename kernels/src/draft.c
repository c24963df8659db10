/* draft.c - which tokens may come next, found in the text itself, and whether trying them pays.
 *
 * Answers repeat: names, code, quotations, what was asked. Where the last tokens stood before, those that followed then are
 * a draft: one pass over several tokens verifies it, and each that came true has cost less than a pass of its own. What a
 * pass costs hangs on the device (where reading weights is the limit, further tokens are nearly free), and how often
 * drafts come true hangs on the text. Both are measured as it goes; neither changes what is answered. */
#include "edgebit.h"
#include "mem.h"

enum { MIN_MATCH = 3, MAX_MATCH = 16 };

/* Trials while drafting doesn't pay: steps between two of them, doubled each time one fails. */
enum { FIRST_PAUSE = 4, LONGEST_PAUSE = 64 };

/* ---- looking up ---- */

/* How many tokens before tokens[a] and tokens[b], these included, are the same. */
static uint32_t match_length(const int32_t *tokens, size_t a, size_t b) {
    uint32_t length = 0;
    while (length < MAX_MATCH && length <= a && tokens[a - length] == tokens[b - length])
        length++;
    return length;
}

size_t eb_draft_lookup(const int32_t *tokens, size_t n, int32_t *draft, size_t max, uint32_t *match) {
    uint32_t longest = MIN_MATCH - 1;
    size_t next = 0;
    if (tokens && draft && n > MIN_MATCH)
        for (size_t end = n - 1; end-- > 0 && longest < MAX_MATCH;) {
            const uint32_t length = match_length(tokens, end, n - 1);
            if (length > longest) {
                longest = length;
                next = end + 1;
            }
        }
    if (match)
        *match = next ? longest : 0;
    if (!next)
        return 0;
    for (size_t i = 0; i < max; i++) /* past the end of the text the draft goes on with itself */
        draft[i] = next + i < n ? tokens[next + i] : draft[next + i - n];
    return max;
}

/* ---- whether it pays ---- */

/* Drafts after a longer match come true more often; of forced text all do that the model would split as the tokenizer. */
enum { FORCED = EB_DRAFT_KINDS - 1 };

static unsigned kind_of(uint32_t match) { return match < 4 ? 0 : match < 6 ? 1 : match < MAX_MATCH ? 2 : 3; }

static float smoothed(float before, float now, float share) { return before + (now - before) * share; }

eb_status eb_drafting_init(eb_drafting *drafting, uint32_t max) {
    /* First guesses, from texts and programs; a few drafts replace them. */
    static const float guesses[EB_DRAFT_KINDS] = {0.4f, 0.5f, 0.7f, 0.8f, 0.9f};
    if (!drafting || drafting->size != sizeof *drafting || max > EB_MAX_DRAFT)
        return EB_BAD_ARGUMENT;
    eb_memset(drafting, 0, sizeof *drafting);
    drafting->size = sizeof *drafting;
    drafting->max = max;
    drafting->more_ns = -1;
    eb_memcpy(drafting->hits, guesses, sizeof guesses);
    return EB_OK;
}

/* The length, 0 to `most`, that gives the most tokens in a time. */
static uint32_t best_length(const eb_drafting *d, unsigned kind, uint32_t most) {
    uint32_t best = 0;
    float expected = 1, chance = 1, best_rate = 1 / d->pass_ns;
    for (uint32_t length = 1; length <= most; length++) {
        chance *= d->hits[kind];
        expected += chance;
        const float rate = expected / (d->pass_ns + d->more_ns * (float)length);
        if (rate > best_rate) {
            best_rate = rate;
            best = length;
        }
    }
    return best;
}

/* Of a draft of `most` tokens, so many as are likely to pay; one now and then where none is. */
static uint32_t choose_length(eb_drafting *d, unsigned kind, uint32_t most) {
    d->kind = kind;
    d->length = d->more_ns < 0 ? 1 : best_length(d, d->kind, most);
    if (!d->length) {
        if (d->pause[d->kind])
            d->pause[d->kind]--;
        else
            d->length = d->trial = 1;
    }
    return d->length;
}

/* How long the next draft can be, at most `max`; 0 too where it is not known yet what a pass costs. */
static uint32_t begin_draft(eb_drafting *d, uint32_t max) {
    if (!d || d->size != sizeof *d)
        return 0;
    d->length = d->trial = 0;
    return d->pass_ns <= 0 ? 0 : max < d->max ? max : d->max;
}

uint32_t eb_draft(eb_drafting *drafting, const int32_t *tokens, size_t n, int32_t *draft, uint32_t max) {
    const uint32_t most = begin_draft(drafting, max);
    uint32_t match = 0;
    if (!most || !eb_draft_lookup(tokens, n, draft, most, &match))
        return 0;
    return choose_length(drafting, kind_of(match), most);
}

uint32_t eb_draft_forced(eb_drafting *drafting, uint32_t n) {
    const uint32_t most = begin_draft(drafting, n);
    return most ? choose_length(drafting, FORCED, most) : 0;
}

/* Drafts of the kind under way to pass over now. What came true is worth another trial soon, unless even that does not
 * pay here. */
static uint32_t pause_after(const eb_drafting *d, uint32_t n_accepted) {
    if (!d->trial)
        return 0;
    const uint32_t before = d->pauses[d->kind];
    if (n_accepted && d->more_ns < 0.9f * d->pass_ns)
        return before / 2;
    return !before ? FIRST_PAUSE : before < LONGEST_PAUSE ? 2 * before : LONGEST_PAUSE;
}

void eb_draft_record(eb_drafting *drafting, uint32_t n_accepted, uint64_t ns) {
    eb_drafting *d = drafting;
    if (!d || d->size != sizeof *d || n_accepted > d->length)
        return;
    const float took = (float)ns;
    if (!d->length) {
        d->pass_ns = d->pass_ns > 0 ? smoothed(d->pass_ns, took, 0.125f) : took;
        return;
    }
    const float more = took > d->pass_ns ? (took - d->pass_ns) / (float)d->length : 0;
    d->more_ns = d->more_ns >= 0 ? smoothed(d->more_ns, more, 0.125f) : more;
    float *hits = &d->hits[d->kind];
    for (uint32_t i = 0; i < d->length && i <= n_accepted; i++)
        *hits = smoothed(*hits, i < n_accepted, 0.0625f);
    d->pause[d->kind] = d->pauses[d->kind] = pause_after(d, n_accepted);
    d->drafted += d->length;
    d->accepted += n_accepted;
    d->length = 0;
}
