/* What CPU cores can do at most for benchmarks/input.py: libjpeg-turbo and a resampler, nothing else.

   Decode the window alone (rows above it are entropy-decoded only, those below not at all, columns beside it neither
   transformed nor converted), shrink with an antialiased triangle filter, mirror, normalise, store float32 HWC. No file
   is opened, nothing is allocated per image, no thread waits for another before the last image. Upsampling of chroma is
   the fast one and the inverse DCT the accurate one, as in DALI.

   cc -O3 -march=native -shared -fPIC limit.c -o limit.so -ljpeg -lpthread */

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

typedef struct {
    const uint8_t **jpegs;   /* of each planned image */
    const uint64_t *lengths; /* bytes */
    const int32_t *windows;  /* (plans, 4): top, left, height, width */
    const uint8_t *flips;
    int64_t plans; /* they are gone through in a circle, from `first` on */
    int64_t first;
    int64_t count; /* images to make */
    int64_t slots; /* pictures that `out` has room for */
    int32_t size;  /* height and width of a picture */
    const float *mean, *std; /* of pixels from 0 to 255 */
    float *out;
} Work;

typedef struct {
    Work work;
    atomic_llong next;
} Shared;

typedef struct {
    float *weights; /* (size, most) */
    int *first, *taps, most;
} Filter;

typedef struct {
    uint8_t *pixels; /* RGBX rows of the window */
    float *row;      /* one row, shrunk vertically */
    size_t pixels_size, row_size;
    Filter down, across;
} Room;

static void *grown(void *memory, size_t *have, size_t want) {
    if (*have >= want) return memory;
    *have = want;
    return realloc(memory, want);
}

/* Triangle of Pillow's and DALI's resize: as wide as an output pixel where that is larger than an input pixel. */
static void triangle(Filter *filter, int in, int size) {
    double scale = (double)in / size, support = scale > 1 ? scale : 1;
    int most = (int)ceil(support) * 2 + 1;
    if (most > filter->most) {
        filter->most = most;
        filter->weights = realloc(filter->weights, sizeof(float) * size * most);
        filter->first = realloc(filter->first, sizeof(int) * size);
        filter->taps = realloc(filter->taps, sizeof(int) * size);
    }
    for (int i = 0; i < size; i++) {
        double centre = (i + 0.5) * scale, sum = 0;
        int low = (int)fmax(centre - support + 0.5, 0), high = (int)fmin(centre + support + 0.5, in);
        float *weights = filter->weights + (size_t)i * filter->most;
        for (int x = low; x < high; x++) {
            double weight = fmax(1 - fabs((x + 0.5 - centre) / support), 0);
            weights[x - low] = (float)weight;
            sum += weight;
        }
        for (int x = low; x < high; x++) weights[x - low] /= (float)sum;
        filter->first[i] = low;
        filter->taps[i] = high - low;
    }
}

/* The window's rows as RGBX, 4 bytes a pixel; *stride is their length in bytes and *skip the pixels before the window. */
static void decode(const uint8_t *jpeg, size_t length, const int32_t *window, Room *room, size_t *stride, int *skip) {
    struct jpeg_decompress_struct state;
    struct jpeg_error_mgr errors;
    state.err = jpeg_std_error(&errors); /* ends the process on a broken file */
    jpeg_create_decompress(&state);
    jpeg_mem_src(&state, jpeg, length);
    jpeg_read_header(&state, TRUE);
    state.out_color_space = JCS_EXT_RGBX;
    state.do_fancy_upsampling = FALSE;
    jpeg_start_decompress(&state);
    JDIMENSION left = window[1], width = window[3];
    jpeg_crop_scanline(&state, &left, &width); /* widens the window to whole blocks */
    *stride = 4 * (size_t)width;
    *skip = window[1] - (int)left;
    room->pixels = grown(room->pixels, &room->pixels_size, *stride * window[2]);
    if (window[0]) jpeg_skip_scanlines(&state, window[0]);
    for (int y = 0; y < window[2];) {
        JSAMPROW row = room->pixels + y * *stride;
        y += jpeg_read_scanlines(&state, &row, 1);
    }
    jpeg_destroy_decompress(&state); /* what follows the window is not read */
}

static void resize(const Work *work, const Room *room, size_t stride, int skip, int width, int flip, float *out) {
    const int size = work->size, values = 4 * width;
    const Filter *down = &room->down, *across = &room->across;
    float scale[4] = {0}, shift[4] = {0};
    for (int c = 0; c < 3; c++) scale[c] = 1 / work->std[c], shift[c] = -work->mean[c] / work->std[c];
    for (int y = 0; y < size; y++) {
        float *restrict row = room->row;
        for (int tap = 0; tap < down->taps[y]; tap++) {
            const float weight = down->weights[y * down->most + tap];
            const uint8_t *restrict line = room->pixels + (down->first[y] + tap) * stride + 4 * skip;
            if (tap == 0)
                for (int i = 0; i < values; i++) row[i] = weight * line[i];
            else
                for (int i = 0; i < values; i++) row[i] += weight * line[i];
        }
        for (int x = 0; x < size; x++) {
            float sum[4] = {0};
            const float *from = row + 4 * across->first[x], *weights = across->weights + x * across->most;
            for (int tap = 0; tap < across->taps[x]; tap++)
                for (int c = 0; c < 4; c++) sum[c] += weights[tap] * from[4 * tap + c];
            float *to = out + 3 * (y * size + (flip ? size - 1 - x : x));
            for (int c = 0; c < 3; c++) to[c] = sum[c] * scale[c] + shift[c];
        }
    }
}

static void *thread(void *argument) {
    Shared *shared = argument;
    const Work *work = &shared->work;
    Room room = {0};
    for (;;) {
        int64_t number = atomic_fetch_add(&shared->next, 1);
        if (number >= work->count) break;
        int64_t plan = (work->first + number) % work->plans;
        const int32_t *window = work->windows + 4 * plan;
        size_t stride;
        int skip;
        decode(work->jpegs[plan], work->lengths[plan], window, &room, &stride, &skip);
        room.row = grown(room.row, &room.row_size, sizeof(float) * 4 * window[3]);
        triangle(&room.down, window[2], work->size);
        triangle(&room.across, window[3], work->size);
        float *out = work->out + (number % work->slots) * 3 * work->size * work->size;
        resize(work, &room, stride, skip, window[3], work->flips[plan], out);
    }
    free(room.pixels), free(room.row);
    free(room.down.weights), free(room.down.first), free(room.down.taps);
    free(room.across.weights), free(room.across.first), free(room.across.taps);
    return NULL;
}

void make_pictures(const Work *work, int32_t threads) {
    Shared shared = {.work = *work};
    pthread_t started[threads];
    for (int i = 0; i < threads; i++) pthread_create(&started[i], NULL, thread, &shared);
    for (int i = 0; i < threads; i++) pthread_join(started[i], NULL);
}
