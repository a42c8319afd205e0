/* Exact MTCNN (the faces of facenet-pytorch's MTCNN) on one core, without dependencies.
 *
 * How it is laid out: this file includes itself once per instruction set with KERNEL defined; that part (at the end)
 * holds the vector kernels, everything above it is plain C compiled once for the baseline.  A kernel sums every
 * output in one fixed order (bias, then input channel, row, column) with one fused multiply-add per term and no sum
 * ever runs across lanes, so AVX2, AVX-512 and NEON agree to the bit; plain SSE2 has no fused multiply-add and rounds
 * twice.  Build with -ffp-contract=off, or the compiler may fuse more than is written here.
 *
 * The cascade asks PNet about parts of levels (scan), then RNet and ONet about its candidates (settle), of which it
 * remembers the answers (Seen): once for all faces, again and again for the one face of target mode (target).
 *
 * "Flat" convolution: a layer's rows lie end to end with one stride S for all layers of a net, so that output
 * i = y*S + x needs input i + ky*S + kx, vectors run across row ends and only the k-1 columns at a row's end are
 * wasted. */
#ifndef KERNEL
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif
#define INLINE static inline __attribute__((always_inline))
#define PAD 128                         /* floats that a tile may read or write past the end of a row of outputs */
#define BAND 1536                       /* positions of PNet worked on at a time: its layers then stay in the L2 cache */

typedef float v4f __attribute__((vector_size(16)));
typedef int32_t v4i __attribute__((vector_size(16)));
typedef int32_t v4i_u __attribute__((vector_size(16), aligned(4)));

typedef struct { int cin, cout, k; const float *w, *bias, *slope; } Conv;   /* w: [cout/4][cin][k][k][4], or for wino [cout/4][5][cin][3][4] */
typedef struct { int nin, nout; const float *w, *bias, *slope; } Dense;     /* w: [nout/16][nin][16], slope may be NULL */
typedef struct {
    const float *p1w, *p1b, *p1s;                                           /* PNet conv1, w: [3][3][3][10] */
    Conv p2, p3, d2, d3, r1, r2, r3, o1, o2, o3, o4;
    const float *phw, *phb;                                                 /* heads: [32][7], logit 1-0 last */
    Dense r4, r5, o5, o6;
} Nets;

typedef struct {
    const char *name;
    void (*add_rows)(uint16_t *, const uint8_t *, size_t, size_t, int);
    void (*widen)(uint32_t *, const uint16_t *, size_t, int);
    void (*pnet1)(const Nets *, const float *, size_t, float *, size_t, int, size_t, const float *, const float *);
    void (*conv)(const Conv *, const float *, size_t, int, float *, size_t, size_t);
    void (*wino)(const Conv *, const float *, size_t, int, int, float *, size_t, float *);
    int (*phits)(const Nets *, const float *, size_t, size_t, float, int *);
    void (*pagain)(const Nets *, const float *, size_t, int, const int *, int, float *);
    void (*pool)(const float *, size_t, int, int, int, int, float *, size_t, int);
    void (*dense)(const Dense *, const float *, float *, int);
} Kernels;

#define KERNEL generic
#include "_mtcnn.c"
#undef KERNEL
#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define KERNEL avx2
#include "_mtcnn.c"
#undef KERNEL
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#define KERNEL avx512
#include "_mtcnn.c"
#undef KERNEL
#pragma GCC pop_options
#endif

static const Kernels *choose(const char *want)
{
    const Kernels *best = &kernels_generic;
#if defined(__x86_64__)
    __builtin_cpu_init();
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (avx2 && (!*want || !strcmp(want, "avx2") || !strcmp(want, "avx512"))) best = &kernels_avx2;
    if (avx512 && (!*want || !strcmp(want, "avx512"))) best = &kernels_avx512;
#endif
    return !*want || !strcmp(want, best->name) ? best : NULL;
}

/* ---------------------------------------------------------------------------------------- memory, weights, nms */

typedef struct { void *p[64]; int n, bad; } Pool;

static void *take(Pool *m, size_t bytes)
{
    void *p = m->n < 64 ? aligned_alloc(64, (bytes + 127) / 64 * 64) : NULL;
    if (!p) { m->bad = 1; return NULL; }
    return m->p[m->n++] = p;
}
static float *zeros(Pool *m, size_t n)                  /* for layers whose spare lanes are read: nothing strange in them */
{
    float *p = take(m, n * sizeof(float));
    return p ? memset(p, 0, n * sizeof(float)) : p;
}
#define TAKE(m, type, n) ((type *)take(m, sizeof(type) * (size_t)(n)))
static void drop(Pool *m) { while (m->n) free(m->p[--m->n]); }

static const float *cut(const float **p, size_t n) { const float *q = *p; *p += n; return q; }

static Conv cut_conv(const float **p, int cin, int cout, int k, int taps)
{
    Conv c = {cin, cout, k, NULL, NULL, NULL};
    c.w = cut(p, (size_t)cin * cout * taps); c.bias = cut(p, cout); c.slope = cut(p, cout);
    return c;
}

static Dense cut_dense(const float **p, int nin, int nout, int slope)
{
    Dense d = {nin, nout, NULL, NULL, NULL};
    d.w = cut(p, (size_t)nin * nout); d.bias = cut(p, nout);
    if (slope) d.slope = cut(p, nout);
    return d;
}

static size_t unpack(Nets *n, const float *start)       /* the order is core.pack()'s */
{
    const float *p = start;
    n->p1w = cut(&p, 270); n->p1b = cut(&p, 10); n->p1s = cut(&p, 10);
    n->p2 = cut_conv(&p, 10, 16, 3, 15); n->p3 = cut_conv(&p, 16, 32, 3, 15);
    n->d2 = cut_conv(&p, 10, 16, 3, 9); n->d3 = cut_conv(&p, 16, 32, 3, 9);
    n->phw = cut(&p, 32 * 7); n->phb = cut(&p, 7);
    n->r1 = cut_conv(&p, 3, 28, 3, 9); n->r2 = cut_conv(&p, 28, 48, 3, 15); n->r3 = cut_conv(&p, 48, 64, 2, 4);
    n->r4 = cut_dense(&p, 576, 128, 1); n->r5 = cut_dense(&p, 128, 16, 0);
    n->o1 = cut_conv(&p, 3, 32, 3, 9); n->o2 = cut_conv(&p, 32, 64, 3, 15); n->o3 = cut_conv(&p, 64, 64, 3, 15);
    n->o4 = cut_conv(&p, 64, 128, 2, 4);
    n->o5 = cut_dense(&p, 1152, 256, 1); n->o6 = cut_dense(&p, 256, 16, 0);
    return (size_t)(p - start);
}

typedef struct { float b[4], score, reg[4], pts[10]; int seen; } Face;      /* seen: its place among Cascade.seen */
typedef struct { Face *f; int n, room; } Faces;

static int grow(Faces *v, int extra)                    /* makes room for more; 0 if there is no memory */
{
    if (v->n + extra > v->room) {
        int room = (v->n + extra) * 2 + 64;
        Face *f = realloc(v->f, sizeof(Face) * (size_t)room);
        if (!f) return 0;
        v->f = f; v->room = room;
    }
    return 1;
}

typedef struct { float score; int i; } Key;
static int by_score(const void *a, const void *b)       /* descending, ties by first index (stable) */
{
    const Key *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score ? 1 : -1) : (x->i > y->i) - (x->i < y->i);
}
static int by_score_last(const void *a, const void *b)  /* descending, ties by last index (argsort, then the last) */
{
    const Key *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score ? 1 : -1) : (x->i < y->i) - (x->i > y->i);
}

/* Greedy suppression of v->f[from:], which it leaves in picking order.  min = 0: torchvision's nms (no +1, double
 * comparison); min = 1: facenet's nms_numpy(..., 'Min') (+1, float comparison). */
static int nms(Faces *v, int from, double threshold, int min)
{
    int n = v->n - from, kept = 0;
    if (n <= 0) return 0;
    Key *key = malloc(sizeof(Key) * n);
    float *q = malloc(sizeof(float) * 5 * n);
    Face *out = malloc(sizeof(Face) * n);
    char *dead = calloc(n, 1);
    int bad = !key || !q || !out || !dead;
    if (!bad) {
        float one = min ? 1.0f : 0.0f, limit = (float)threshold;
        for (int i = 0; i < n; i++) key[i] = (Key){v->f[from + i].score, i};
        qsort(key, n, sizeof(Key), min ? by_score_last : by_score);
        float *x1 = q, *y1 = q + n, *x2 = q + 2 * n, *y2 = q + 3 * n, *area = q + 4 * n;
        for (int i = 0; i < n; i++) {
            const float *b = v->f[from + key[i].i].b;
            x1[i] = b[0]; y1[i] = b[1]; x2[i] = b[2]; y2[i] = b[3];
            area[i] = (b[2] - b[0] + one) * (b[3] - b[1] + one);
        }
        for (int i = 0; i < n; i++) {
            if (dead[i]) continue;
            out[kept++] = v->f[from + key[i].i];
            float ax1 = x1[i], ay1 = y1[i], ax2 = x2[i], ay2 = y2[i], aa = area[i];
            for (int j = i + 1; j < n; j++) {
                float w = (ax2 < x2[j] ? ax2 : x2[j]) - (ax1 > x1[j] ? ax1 : x1[j]) + one;
                float h = (ay2 < y2[j] ? ay2 : y2[j]) - (ay1 > y1[j] ? ay1 : y1[j]) + one;
                if (!(w > 0) || !(h > 0)) continue;
                float inter = w * h;
                if (min) dead[j] |= !(inter / (aa < area[j] ? aa : area[j]) <= limit);
                else dead[j] |= (double)(inter / (aa + area[j] - inter)) > threshold;
            }
        }
        memcpy(v->f + from, out, sizeof(Face) * kept);
        v->n = from + kept;
    }
    free(key); free(q); free(out); free(dead);
    return bad ? -1 : 0;
}

static float softmax1(float a, float b)                 /* the second of two, as torch computes it */
{
    float m = a > b ? a : b, ea = expf(a - m), eb = expf(b - m);
    return eb / (ea + eb);
}

static size_t wino_room(int cin, int S, int rows)       /* see wino() */
{
    return S + 32 + ((size_t)(rows + 2) / 3 * S + 32) * (5 * (size_t)cin + 40) + PAD;
}

/* -------------------------------------------------------------------------------- 'area' resize (exact windows) */

typedef struct { const uint8_t *px; int w, h; const Kernels *k; } Image;
typedef struct { uint16_t *d16; uint32_t *d; v4i *sum; } Rows;     /* of one row of windows: columns, prefix sums */

static int rows_make(Pool *m, Rows *r, int w)
{
    r->d16 = TAKE(m, uint16_t, 3 * (size_t)w + 64); r->d = TAKE(m, uint32_t, 3 * (size_t)w + 64);
    r->sum = TAKE(m, v4i, (size_t)w + 1);
    return !m->bad;
}

static int win0(int i, int in, int out) { return (int)((int64_t)i * in / out); }
static int win1(int i, int in, int out) { return (int)(((int64_t)(i + 1) * in + out - 1) / out); }

/* prefix sums over x of the column sums of rows y0..y1 of the w columns from x0 on (lane 3 is of no use) */
static void window_row(const Image *im, Rows *r, int x0, int w, int y0, int y1)
{
    size_t stride = (size_t)im->w * 3, n = (size_t)w * 3;
    const uint8_t *p = im->px + y0 * stride + (size_t)x0 * 3;
    for (int y = y0, first = 1; y < y1; first = 0) {
        int rows = y1 - y < 256 ? y1 - y : 256;         /* 256 rows of 255 fit 16 bits */
        im->k->add_rows(r->d16, p, stride, n, rows);
        im->k->widen(r->d, r->d16, n, first);
        y += rows; p += rows * stride;
    }
    v4i s = {0, 0, 0, 0};
    for (int x = 0; x < w; x++) { r->sum[x] = s; s += *(const v4i_u *)(r->d + 3 * x); }
    r->sum[w] = s;
}

/* crop x0..x1, y0..y1 to size*size planes, normalised; divides as torch does, so the net's input has torch's bits */
static void crop(const Image *im, Rows *r, int x0, int y0, int x1, int y1, int size, float *out)
{
    int w = x1 - x0, h = y1 - y0, c[48], d[48];
    for (int x = 0; x < size; x++) { c[x] = win0(x, w, size); d[x] = win1(x, w, size); }
    for (int y = 0; y < size; y++) {
        int a = win0(y, h, size), b = win1(y, h, size);
        window_row(im, r, x0, w, y0 + a, y0 + b);
        float kh = (float)(b - a), *o = out + y * size;
        for (int x = 0; x < size; x++) {
            float kw = (float)(d[x] - c[x]);
            v4f v = __builtin_convertvector(r->sum[d[x]] - r->sum[c[x]], v4f) / (v4f){kh, kh, kh, kh};
            v = (v / (v4f){kw, kw, kw, kw} - 127.5f) * 0.0078125f;
            o[x] = v[0]; o[size * size + x] = v[1]; o[2 * size * size + x] = v[2];
        }
    }
}

/* ------------------------------------------------------------------------------------------------------- PNet */

typedef struct {
    double scale;
    int w, h, part[4];                                  /* of the grid of cells: size; left, top, right, bottom looked at */
    Faces found;                                        /* there */
} Level;

/* The cells of one level's part.  Input planes are split by parity of row and column:
 * in[((c*2 + rowpar)*2 + colpar)*ps + y2*S + x2].
 * Layers hold a band of rows; the rows that the next band needs again are moved to the
 * front (of the first layer two more than the second needs, so that row i of all three belongs together). */
static int pnet(const Nets *net, const Image *im, const Level *l, float threshold, Faces *out)
{
    const Kernels *k = im->k;
    int ws = (int)(im->w * l->scale + 1), hs = (int)(im->h * l->scale + 1);
    int x2 = l->part[0], y2 = l->part[1], wo = l->part[2] - x2, ho = l->part[3] - y2;
    int S = wo + 5, h1 = ho + 4, R = BAND / S > 6 ? BAND / S / 3 * 3 : 6, start = out->n, rc = -1;
    if (R > h1) R = h1;
    int from = 2 * x2, to = from + 2 * S < ws ? from + 2 * S : ws, px = win0(from, im->w, ws), pw = win1(to - 1, im->w, ws) - px;
    size_t ps = (size_t)(R + 6) * S + PAD;
    Pool m = {.n = 0};
    Rows r;
    float *in = zeros(&m, 12 * ps), *b1 = zeros(&m, 10 * ps), *b2 = zeros(&m, 16 * ps), *b3 = TAKE(&m, float, 32 * ps);
    float *mc = zeros(&m, ps), *mr = zeros(&m, ps), *act = TAKE(&m, float, 32 * ps), *inv = TAKE(&m, float, im->w / ws + 4);
    float *tmp = TAKE(&m, float, wino_room(16, S, R + 2));
    int *hit = TAKE(&m, int, ps), *xa = TAKE(&m, int, 2 * S), *xb = TAKE(&m, int, 2 * S);
    if (!rows_make(&m, &r, pw) || m.bad) goto done;
    for (int x = from; x < to; x++) { xa[x - from] = win0(x, im->w, ws) - px; xb[x - from] = win1(x, im->w, ws) - px; }
    if ((ws & 1) && l->part[2] == l->w)                 /* the last pooled column has no second column: ceil_mode */
        for (size_t i = wo + 3; i < ps; i += S) mc[i] = -FLT_MAX / 4;
    float logit = fminf(logf(threshold / (1 - threshold)), 16) - 1e-3f, fscale = (float)l->scale;
    for (int p0 = 0, pairs = 0, y3 = 0; p0 < h1;) {
        int p1 = p0 + R < h1 ? p0 + R : h1, keep = p0 ? 4 : 0, rows = p1 - p0;
        if (p0) {                                       /* previous band had R rows and began R rows earlier */
            for (int c = 0; c < 12; c++) memmove(in + c * ps, in + c * ps + (size_t)R * S, sizeof(float) * S);
        }
        for (; pairs <= p1; pairs++)
            for (int q = 0; q < 2; q++) {
                int y = 2 * (y2 + pairs) + q;
                if (y >= hs) continue;
                int a = win0(y, im->h, hs), b = win1(y, im->h, hs);
                window_row(im, &r, px, pw, a, b);
                for (int i = 0; i < im->w / ws + 3; i++) inv[i] = 1.0f / ((float)(b - a) * (float)(i ? i : 1));
                float *o = in + (size_t)(pairs - p0) * S + q * 2 * ps;
                for (int x = 0; x < to - from; x++) {
                    int c = xa[x], d = xb[x];
                    v4f v = (__builtin_convertvector(r.sum[d] - r.sum[c], v4f) * inv[d - c] - 127.5f) * 0.0078125f;
                    float *t = o + (x & 1) * ps + (x >> 1);
                    t[0] = v[0]; t[4 * ps] = v[1]; t[8 * ps] = v[2];
                }
            }
        if (p1 == h1 && (hs & 1) && l->part[3] == l->h)
            for (size_t i = (size_t)(rows - 1) * S; i < (size_t)rows * S; i++) mr[i] = -FLT_MAX / 4;
        float *o1 = b1 + (size_t)keep * S;
        k->pnet1(net, in, ps, o1, ps, S, (size_t)rows * S, mc, mr);
        int have = keep + rows, keep2 = p0 ? 2 : 0, c2 = have - keep2 - 2;
        k->wino(&net->p2, b1 + (size_t)keep2 * S, ps, S, c2, b2 + (size_t)keep2 * S, ps, tmp);
        int c3 = keep2 + c2 - 2;
        if (c3 > 0) {
            k->wino(&net->p3, b2, ps, S, c3, b3, ps, tmp);
            int hits = k->phits(net, b3, ps, (size_t)c3 * S - 4, logit, hit);
            k->pagain(net, b1, ps, S, hit, hits, act);
            if (!grow(out, hits)) goto done;
            for (int i = 0; i < hits; i++) {
                int x = hit[i] % S, y = y3 + hit[i] / S;
                if (x >= wo || y >= ho) continue;
                x += x2; y += y2;
                float v[6];
                for (int o = 0; o < 6; o++) {
                    v[o] = net->phb[o];
                    for (int c = 0; c < 32; c++) v[o] += net->phw[c * 7 + o] * act[32 * (size_t)i + c];
                }
                float score = softmax1(v[0], v[1]);
                if (!(score >= threshold)) continue;
                Face *f = out->f + out->n++;
                f->b[0] = floorf((2 * (float)x + 1) / fscale); f->b[1] = floorf((2 * (float)y + 1) / fscale);
                f->b[2] = floorf((2 * (float)x + 12) / fscale); f->b[3] = floorf((2 * (float)y + 12) / fscale);
                f->score = score; f->seen = y * l->w + x;
                memcpy(f->reg, v + 2, sizeof(f->reg));
            }
            y3 += c3;
        }
        for (int c = 0; c < 10; c++) memmove(b1 + c * ps, b1 + c * ps + (size_t)(have - 4) * S, sizeof(float) * 4 * S);
        for (int c = 0; c < 16; c++) memmove(b2 + c * ps, b2 + c * ps + (size_t)(keep2 + c2 - 2) * S, sizeof(float) * 2 * S);
        p0 = p1;
    }
    rc = nms(out, start, 0.5, 0);
done:
    drop(&m);
    return rc;
}

/* ------------------------------------------------------------------------------- which faces are worth looking for */

/* Target mode looks only for the face that a rule chooses among those of the full cascade.  How far the three
 * regressions may take a face is measured (tests/benchmarks/target.py says on what, and how often it is too little),
 * in sides of the window of PNet, of RNet's and of ONet's crop in which it is found: */
static const struct { double small, large, shift, reach; } margin[3] = {
    {0.60, 1.95, 0.45, 0.65},                           /* side (root of the area), at least and at most; distance of the centres */
    {0.60, 1.95, 0.40, 0.65},                           /* per axis; distance of an edge outside */
    {0.72, 1.25, 0.25, 0.40}};
#define FINER 0.38                      /* the windows and crops that may decide about a face, in its sides: for there the */
#define COARSER 2.40                    /* cascade may find it better, or what suppresses it */
#define BEYOND 0.10                     /* of a face that reaches so far beyond the photo the cascade also sees smaller ones, */
                                        /* of what the photo has of it: everything is looked at */

enum { ALL, OVERLAP, AREA_CENTRE, CENTRE, LARGEST, PROBABILITY };       /* as in faces.RULES; ALL: no target, every face */
typedef struct { int rule; double box[4], least; } Target;

static double area(const double *b) { return (b[2] - b[0] > 0 ? b[2] - b[0] : 0) * (b[3] - b[1] > 0 ? b[3] - b[1] : 0); }

static double shared(const double *a, const double *b)
{
    double w = (a[2] < b[2] ? a[2] : b[2]) - (a[0] > b[0] ? a[0] : b[0]), h = (a[3] < b[3] ? a[3] : b[3]) - (a[1] > b[1] ? a[1] : b[1]);
    return w > 0 && h > 0 ? w * h : 0;
}

/* what faces.choose() compares; it takes the first of the greatest */
static double worth(const Target *t, const Image *im, const Face *f)
{
    double b[4] = {f->b[0], f->b[1], f->b[2], f->b[3]}, both = shared(b, t->box);
    double dx = (b[0] + b[2]) / 2 - im->w / 2.0, dy = (b[1] + b[3]) / 2 - im->h / 2.0;
    switch (t->rule) {
    case OVERLAP: return both > 0 ? both / (area(b) + area(t->box) - both) : 0;
    case AREA_CENTRE: return (b[2] - b[0]) * (b[3] - b[1]) - 2 * (dx * dx + dy * dy);
    case CENTRE: return -(fabs(dx) + fabs(dy));
    case LARGEST: return (b[2] - b[0]) * (b[3] - b[1]);
    default: return f->score;
    }
}

/* One axis' part in promise(), more is better: of a window (net 0) or crop (1, 2) of side s with its centre at. */
static double promise_axis(const Target *t, const Image *im, int net, int axis, double at, double s)
{
    double far = s * (0.5 + margin[net].reach), lo = t->box[axis], hi = t->box[axis + 2];
    double d = fabs(at - (axis ? im->h : im->w) / 2.0) - s * margin[net].shift;
    if (t->rule == OVERLAP) return (at + far < hi ? at + far : hi) - (at - far > lo ? at - far : lo);
    if (d < 0 || t->rule == LARGEST) return 0;
    return t->rule == CENTRE ? -d : -2 * d * d;
}

/* the most that a face found there can be worth; of its probability nothing is known beforehand */
static double promise(const Target *t, int net, double s, double x, double y)
{
    double large = s * margin[net].large, small = s * margin[net].small, both = x > 0 && y > 0 ? x * y : 0;
    switch (t->rule) {
    case OVERLAP:
        if (both > large * large) both = large * large;
        return both / (area(t->box) + (small * small > both ? small * small : both) - both);
    case AREA_CENTRE: case LARGEST: return large * large + x + y;
    case CENTRE: return x + y;
    default: return INFINITY;
    }
}

static double promise_of(const Target *t, const Image *im, int net, const float *b)
{
    double s = b[2] - b[0];
    return promise(t, net, s, promise_axis(t, im, net, 0, (b[0] + b[2]) / 2, s), promise_axis(t, im, net, 1, (b[1] + b[3]) / 2, s));
}

/* how far from that of face f the centre of what may decide about it can lie; negative if nothing of that side can */
static double near(const Face *f, int net, int axis, double s)
{
    double w = f->b[2] - f->b[0], h = f->b[3] - f->b[1], side = sqrt(w * h), size = axis ? h : w;
    if (!(s >= FINER * side && s <= COARSER * side)) return -1;
    return (size + s) / 2 - 0.7 * (size < s ? size : s) + margin[net].shift * s;        /* 0.7: of all the cascade's suppressions */
}

/* ----------------------------------------------------------------------------------------------- RNet and ONet */

typedef struct { float *tmp, *in, *a, *b, *feat, *hid, *res; } Work;
typedef struct { float out[2][16]; int cell, known[2]; } Seen;          /* what R- and ONet said of a candidate of PNet */
enum { GROUP = 64 };                                    /* candidates whose dense layers are worked on together */

typedef struct {
    const Nets *net; const Image *im; const Target *t;
    float thr[3];
    int all;                                            /* every level is looked at, and every crop */
    Level *level; int levels;
    Seen *seen; int nseen, room;
    int64_t cells;                                      /* of PNet, that were worked on */
    Face face; int chosen; double best;                 /* the one that is meant as far as is known, what it is worth */
    int news, few;                                      /* whether a net said something in the last settle(); see refine() */
    Pool mem; Rows rows; Work w;
} Cascade;

static void square(float *b)                            /* rerec */
{
    float w = b[2] - b[0], h = b[3] - b[1], l = w > h ? w : h;
    b[0] = b[0] + w * 0.5f - l * 0.5f; b[1] = b[1] + h * 0.5f - l * 0.5f;
    b[2] = b[0] + l; b[3] = b[1] + l;
}

static void regress(float *b, const float *reg)         /* bbreg */
{
    float w = b[2] - b[0] + 1, h = b[3] - b[1] + 1;
    b[0] += reg[0] * w; b[1] += reg[1] * h; b[2] += reg[2] * w; b[3] += reg[3] * h;
}

static int clamp(float v, int lo, int hi) { return v < (float)lo ? lo : v > (float)hi ? hi : (int)v; }

static int window(const Image *im, const float *b, int *q)      /* pad(): crop q = x0, y0, x1, y1; 0 if it is empty */
{
    q[0] = clamp(b[0], 1, im->w + 1) - 1; q[1] = clamp(b[1], 1, im->h + 1) - 1;
    q[2] = clamp(b[2], 0, im->w); q[3] = clamp(b[3], 0, im->h);
    return q[2] > q[0] && q[3] > q[1];
}

static void features(const float *a, size_t cs, int channels, int S, float *out)        /* 3x3xC, in facenet's order */
{
    for (int x = 0; x < 3; x++)
        for (int y = 0; y < 3; y++)
            for (int c = 0; c < channels; c++) *out++ = a[c * cs + y * S + x];
}

static void rnet_convs(const Nets *n, const Kernels *k, Work *w, float *feat)
{
    k->conv(&n->r1, w->in, 576, 24, w->a, 576 + PAD, 21 * 24 + 22);
    k->pool(w->a, 576 + PAD, 28, 24, 22, 3, w->b, 121 + PAD, 11);
    k->wino(&n->r2, w->b, 121 + PAD, 11, 9, w->a, 121 + PAD, w->tmp);
    k->pool(w->a, 121 + PAD, 48, 11, 9, 3, w->b, 16 + PAD, 4);
    k->conv(&n->r3, w->b, 16 + PAD, 4, w->a, 16 + PAD, 11);
    features(w->a, 16 + PAD, 64, 4, feat);
}

static void onet_convs(const Nets *n, const Kernels *k, Work *w, float *feat)
{
    k->conv(&n->o1, w->in, 2304, 48, w->a, 2304 + PAD, 45 * 48 + 46);
    k->pool(w->a, 2304 + PAD, 32, 48, 46, 3, w->b, 529 + PAD, 23);
    k->wino(&n->o2, w->b, 529 + PAD, 23, 21, w->a, 529 + PAD, w->tmp);
    k->pool(w->a, 529 + PAD, 64, 23, 21, 3, w->b, 100 + PAD, 10);
    k->wino(&n->o3, w->b, 100 + PAD, 10, 8, w->a, 100 + PAD, w->tmp);
    k->pool(w->a, 100 + PAD, 64, 10, 8, 2, w->b, 16 + PAD, 4);
    k->conv(&n->o4, w->b, 16 + PAD, 4, w->a, 16 + PAD, 11);
    features(w->a, 16 + PAD, 128, 4, feat);
}

/* whether RNet (net 1) or ONet (2) is to look at f */
static int wanted(const Cascade *c, const Face *f, int net)
{
    if (c->seen[f->seen].known[net - 1]) return 0;
    if (c->all || promise_of(c->t, c->im, net, f->b) > c->best) return 1;
    for (int axis = 0; axis < 2 && c->chosen; axis++) {
        double d = (f->b[axis] + f->b[axis + 2] - c->face.b[axis] - c->face.b[axis + 2]) / 2;
        if (fabs(d) > near(&c->face, net, axis, f->b[2] - f->b[0])) return 0;
    }
    return c->chosen;
}

/* RNet (net 1) or ONet (2) on those of v that are wanted; keeps the faces over the threshold, their regression and points */
static int refine(Cascade *c, Faces *v, int net)
{
    Key *key = malloc(sizeof(Key) * (size_t)(v->n + 1));
    const Dense *hidden = net == 2 ? &c->net->o5 : &c->net->r4, *heads = net == 2 ? &c->net->o6 : &c->net->r5;
    int out = 0, q[4], at[GROUP], have = 0, n = 0;
    Work *w = &c->w;
    if (!key) return -1;
    for (int i = 0; i < v->n; i++)
        if (wanted(c, v->f + i, net)) key[n++] = (Key){c->all ? 0 : (float)promise_of(c->t, c->im, net, v->f[i].b), i};
    if (net == 2 && !c->all && !c->chosen && n > c->few) {      /* few at first: a face makes most others needless */
        qsort(key, n, sizeof(Key), by_score);
        n = c->few; c->few *= 2;
    }
    for (int j = 0; j <= n; j++) {
        if (have == GROUP || (j == n && have)) {
            c->im->k->dense(hidden, w->feat, w->hid, have);
            c->im->k->dense(heads, w->hid, w->res, have);
            for (int g = 0; g < have; g++) memcpy(c->seen[at[g]].out[net - 1], w->res + 16 * g, sizeof(float) * 16);
            have = 0;
        }
        if (j == n) break;
        const Face *f = v->f + key[j].i;
        Seen *s = c->seen + f->seen;
        s->known[net - 1] = c->news = 1;
        if (!window(c->im, f->b, q)) {
            s->out[net - 1][0] = 0; s->out[net - 1][1] = -INFINITY;
            continue;
        }
        crop(c->im, &c->rows, q[0], q[1], q[2], q[3], net == 2 ? 48 : 24, w->in);
        if (net == 2) onet_convs(c->net, c->im->k, w, w->feat + 1152 * have);
        else rnet_convs(c->net, c->im->k, w, w->feat + 576 * have);
        at[have++] = f->seen;
    }
    for (int i = 0; i < v->n; i++) {
        const Seen *s = c->seen + v->f[i].seen;
        const float *o = s->out[net - 1];
        float score = softmax1(o[0], o[1]);
        if (!s->known[net - 1] || !(score > c->thr[net])) continue;
        Face *f = v->f + out++;
        *f = v->f[i];
        f->score = score;
        memcpy(f->reg, o + 2, sizeof(f->reg));
        memcpy(f->pts, o + 6, sizeof(f->pts));
    }
    v->n = out;
    free(key);
    return 0;
}

/* --------------------------------------------------------------------------------------------------- the cascade */

static int empty(const int *part) { return part[0] >= part[2] || part[1] >= part[3]; }

static void join(int *part, const int *with)            /* the rectangle around both */
{
    if (empty(with)) return;
    for (int i = 0; i < 4; i++)
        if (empty(part) || (i < 2 ? with[i] < part[i] : with[i] > part[i])) part[i] = with[i];
}

/* PNet on a part of a level's cells, and on what lies between it and those looked at before */
static int scan(Cascade *c, Level *l, const int *part)
{
    int *p = l->part, known = l->found.n;
    join(p, part);
    Faces old = l->found;
    l->found = (Faces){NULL, 0, 0};
    c->cells += (int64_t)(p[2] - p[0]) * (p[3] - p[1]);
    int rc = pnet(c->net, c->im, l, c->thr[0], &l->found);
    if (!rc && c->nseen + l->found.n > c->room) {
        int room = (c->nseen + l->found.n) * 2;
        Seen *s = realloc(c->seen, sizeof(Seen) * (size_t)room);
        if (s) { c->seen = s; c->room = room; } else rc = -1;
    }
    for (int i = 0; i < l->found.n && !rc; i++) {
        int cell = l->found.f[i].seen, at = -1;
        for (int j = 0; j < known && at < 0; j++)
            if (c->seen[old.f[j].seen].cell == cell) at = old.f[j].seen;
        if (at < 0) c->seen[at = c->nseen++] = (Seen){.cell = cell};
        l->found.f[i].seen = at;
    }
    free(old.f);
    return rc;
}

/* from PNet's candidates so far to faces */
static int settle(Cascade *c, Faces *v)
{
    v->n = c->news = 0;
    for (int i = 0; i < c->levels; i++) {
        const Faces *l = &c->level[i].found;
        if (!grow(v, l->n)) return -1;
        if (l->n) memcpy(v->f + v->n, l->f, sizeof(Face) * (size_t)l->n);
        v->n += l->n;
    }
    if (nms(v, 0, 0.7, 0)) return -1;
    for (int i = 0; i < v->n; i++) {
        float *b = v->f[i].b, *g = v->f[i].reg, w = b[2] - b[0], h = b[3] - b[1];
        b[0] = b[0] + g[0] * w; b[1] = b[1] + g[1] * h; b[2] = b[2] + g[2] * w; b[3] = b[3] + g[3] * h;
        square(b);
    }
    if (refine(c, v, 1) || nms(v, 0, 0.7, 0)) return -1;
    for (int i = 0; i < v->n; i++) { regress(v->f[i].b, v->f[i].reg); square(v->f[i].b); }
    if (refine(c, v, 2)) return -1;
    for (int i = 0; i < v->n; i++) {
        Face *f = v->f + i;
        float bw = f->b[2] - f->b[0] + 1, bh = f->b[3] - f->b[1] + 1, pts[10];
        for (int j = 0; j < 5; j++) {
            pts[2 * j] = bw * f->pts[j] + f->b[0] - 1; pts[2 * j + 1] = bh * f->pts[5 + j] + f->b[1] - 1;
        }
        memcpy(f->pts, pts, sizeof(pts));
        regress(f->b, f->reg);
    }
    return nms(v, 0, 0.7, 1);
}

static int everything(Cascade *c)
{
    for (Level *l = c->level; l < c->level + c->levels; l++)
        if (scan(c, l, (int[4]){0, 0, l->w, l->h})) return -1;
    return 0;
}

/* --------------------------------------------------------------------------------------------------- target mode */

/* Levels are looked at in the order of the most that their windows promise, and of each the cells that promise more
 * than the best face so far is worth; then the neighbourhood of that face, in the levels of about its size; until
 * neither asks for more. */

static double window_side(const Level *l) { return 12 / l->scale; }
static double window_centre(const Level *l, int cell) { return (2 * cell + 6.5) / l->scale; }

/* the rectangle of the cells that promise more than the best face, empty if none does, and the most that one promises */
static double promising(const Cascade *c, const Level *l, int *part)
{
    double s = window_side(l), top[2] = {-INFINITY, -INFINITY};
    for (int axis = 0; axis < 2; axis++)
        for (int i = 0; i < (axis ? l->h : l->w); i++) {
            double p = promise_axis(c->t, c->im, 0, axis, window_centre(l, i), s);
            if (p > top[axis]) top[axis] = p;
        }
    for (int axis = 0; axis < 2; axis++) {
        int n = axis ? l->h : l->w, from = n, to = 0;
        for (int i = 0; i < n; i++) {
            double p = promise_axis(c->t, c->im, 0, axis, window_centre(l, i), s);
            if (!(promise(c->t, 0, s, axis ? top[0] : p, axis ? p : top[1]) > c->best)) continue;
            if (i < from) from = i;
            to = i + 1;
        }
        part[axis] = from; part[axis + 2] = to;
    }
    return promise(c->t, 0, s, top[0], top[1]);
}

static void around(const Cascade *c, const Level *l, int *part)         /* the best face */
{
    double s = window_side(l);
    memset(part, 0, 4 * sizeof(int));
    for (int axis = 0; axis < 2 && c->chosen; axis++) {
        double at = (c->face.b[axis] + c->face.b[axis + 2]) / 2, far = near(&c->face, 0, axis, s), n = axis ? l->h : l->w;
        if (far < 0) return;
        double from = ((at - far) * l->scale - 6.5) / 2, to = ((at + far) * l->scale - 6.5) / 2 + 1;
        part[axis] = (int)(from < 0 ? 0 : from > n ? n : from);
        part[axis + 2] = (int)(to < 0 ? 0 : to > n ? n : to);
    }
}

static int covers(const int *part, const int *other)
{
    return empty(other) || (part[0] <= other[0] && part[1] <= other[1] && part[2] >= other[2] && part[3] >= other[3]);
}

static int beyond(const Cascade *c)                     /* the photo, the best face */
{
    const float *b = c->face.b;
    double most = -b[0];
    if (-b[1] > most) most = -b[1];
    if (b[2] - c->im->w > most) most = b[2] - c->im->w;
    if (b[3] - c->im->h > most) most = b[3] - c->im->h;
    return c->chosen && most > BEYOND * sqrt((double)(b[2] - b[0]) * (b[3] - b[1]));
}

static int target(Cascade *c, Faces *v)                 /* leaves the meant face in v, or none */
{
    for (;;) {
        do {
            if (settle(c, v)) return -1;
            c->best = c->t->rule == OVERLAP ? c->t->least : -INFINITY;
            c->chosen = 0;
            for (int i = 0; i < v->n; i++) {
                double value = worth(c->t, c->im, v->f + i);
                if (c->chosen ? value <= c->best : value < c->best || (c->t->rule == OVERLAP && value <= 0)) continue;
                c->best = value; c->face = v->f[i]; c->chosen = 1;
            }
        } while (c->news);                              /* other crops may be worth a look now */
        if (c->all) break;
        double most = -INFINITY;
        int want[4], part[4];
        Level *next = NULL;
        for (Level *l = c->level + c->levels; l-- > c->level;) {
            double p = promising(c, l, part);
            if (!(p > most) || covers(l->part, part)) continue;
            most = p; next = l;
            memcpy(want, part, sizeof(want));
        }
        if (next) { around(c, next, part); join(want, part); }          /* in one go */
        for (Level *l = c->level + c->levels; !next && l-- > c->level;) {
            around(c, l, want);
            if (!covers(l->part, want)) next = l;
        }
        if (!next && !beyond(c)) break;
        if (next ? scan(c, next, want) : everything(c)) return -1;
        c->all = !next;
    }
    if (grow(v, 1)) v->f[0] = c->face; else return -1;
    v->n = c->chosen;
    return 0;
}

static int detect(Cascade *c, double min_face, double factor, Faces *v)
{
    const Image *im = c->im;
    double m = 12.0 / min_face, side = (im->w < im->h ? im->w : im->h) * m, scale = m;
    int n = 0, rc = -1;
    for (double l = side; l >= 12; l *= factor) n++;
    c->level = calloc((size_t)n + 1, sizeof(Level));
    for (; c->level && side >= 12; scale *= factor, side *= factor) {
        int w = ((int)(im->w * scale + 1) - 1) / 2 - 4, h = ((int)(im->h * scale + 1) - 1) / 2 - 4;
        if (w > 0 && h > 0) c->level[c->levels++] = (Level){.scale = scale, .w = w, .h = h};
    }
    Pool *mem = &c->mem;
    Work *w = &c->w;
    rows_make(mem, &c->rows, im->w);
    w->in = zeros(mem, 3 * 2304 + PAD); w->tmp = TAKE(mem, float, wino_room(64, 23, 21));
    w->a = TAKE(mem, float, 32 * (2304 + PAD) + PAD); w->b = zeros(mem, 64 * (529 + PAD) + PAD);
    w->feat = TAKE(mem, float, 1152 * GROUP); w->hid = TAKE(mem, float, 256 * GROUP); w->res = TAKE(mem, float, 16 * GROUP);
    if (c->level && !mem->bad) rc = c->all && everything(c) ? -1 : c->t->rule == ALL ? settle(c, v) : target(c, v);
    for (int i = 0; i < c->levels; i++) free(c->level[i].found.f);
    free(c->level); free(c->seen); drop(mem);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------ Python */

static PyObject *py_detect(PyObject *self, PyObject *args)
{
    Py_buffer wb, ib;
    int w, h, rc = -1;
    double min_face, thr[3], factor;
    const char *level;
    Target t;
    if (!PyArg_ParseTuple(args, "y*y*iid(ddd)dsi(dddd)d", &wb, &ib, &w, &h, &min_face, thr, thr + 1, thr + 2, &factor, &level,
                          &t.rule, t.box, t.box + 1, t.box + 2, t.box + 3, &t.least)) return NULL;
    Nets net;
    Faces v = {NULL, 0, 0};
    PyObject *res = NULL;
    Image im = {ib.buf, w, h, choose(level)};
    Cascade c = {.net = &net, .im = &im, .t = &t, .thr = {(float)thr[0], (float)thr[1], (float)thr[2]}};
    c.few = 1; c.all = t.rule == ALL || t.rule == PROBABILITY;
    if (!im.k) PyErr_Format(PyExc_ValueError, "this machine has no %s", level);
    else if (w < 0 || h < 0 || ib.len != (Py_ssize_t)w * h * 3) PyErr_SetString(PyExc_ValueError, "image buffer is not w*h*3 bytes");
    else if (wb.len != (Py_ssize_t)(unpack(&net, wb.buf) * sizeof(float))) PyErr_SetString(PyExc_ValueError, "weights have the wrong length");
    else if (!(min_face > 0) || !(factor > 0 && factor < 1)) PyErr_SetString(PyExc_ValueError, "min_face or factor out of range");
    else if (t.rule < ALL || t.rule > PROBABILITY) PyErr_SetString(PyExc_ValueError, "no such rule");
    else {
        Py_BEGIN_ALLOW_THREADS
        rc = detect(&c, min_face, factor, &v);
        Py_END_ALLOW_THREADS
        PyObject *faces = rc ? PyErr_NoMemory() : PyBytes_FromStringAndSize(NULL, (Py_ssize_t)v.n * 60);
        if (faces) {
            float *o = (float *)PyBytes_AS_STRING(faces);
            for (int i = 0; i < v.n; i++, o += 15) {
                memcpy(o, v.f[i].b, 16); o[4] = v.f[i].score; memcpy(o + 5, v.f[i].pts, 40);
            }
            res = Py_BuildValue("NL", faces, (long long)c.cells);
        }
    }
    free(v.f);
    PyBuffer_Release(&wb); PyBuffer_Release(&ib);
    return res;
}

static PyObject *py_level(PyObject *self, PyObject *args)
{
    const char *want;
    if (!PyArg_ParseTuple(args, "s", &want)) return NULL;
    const Kernels *k = choose(want);
    return PyUnicode_FromString(k ? k->name : "");
}

static PyMethodDef methods[] = {
    {"detect", py_detect, METH_VARARGS,
     "detect(weights, image, w, h, min_face, thresholds, factor, level, rule, box, least) -> bytes, 15 float32 a face; cells of PNet"},
    {"level", py_level, METH_VARARGS, "level(want) -> name of the kernels that want ('' for the best) gives, '' if none"},
    {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_mtcnn", NULL, -1, methods, NULL, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit__mtcnn(void) { return PyModule_Create(&module); }

#else /* ========================================================================== kernels, once per instruction set */
#define CAT2(a, b) a##_##b
#define CAT(a, b) CAT2(a, b)
#define F(name) CAT(name, KERNEL)
#undef VL
#undef EVEN
#undef NX
#undef NB
#undef NC
#undef FMA
#undef ADDMUL
#undef MAX
#undef MIN
#if defined(__AVX512F__)
#define VL 16
#define EVEN(a, b) __builtin_shuffle(a, b, (vi){0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30})
#define NX 3                            /* vectors per tile and blocks of four channels: 4*NB*NX accumulators */
#define NB 2
#define NC 5                            /* channels per tile of PNet's first layer: 4*NC accumulators */
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define MAX(a, b) _mm512_max_ps(a, b)
#define MIN(a, b) _mm512_min_ps(a, b)
#define ADDMUL(acc, a, b) __asm__("vfmadd231ps %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b))
#elif defined(__AVX2__)
#define VL 8
#define NB 1
#define EVEN(a, b) __builtin_shuffle(a, b, (vi){0, 2, 4, 6, 8, 10, 12, 14})
#define NX 3
#define NC 2
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define MAX(a, b) _mm256_max_ps(a, b)
#define MIN(a, b) _mm256_min_ps(a, b)
#define ADDMUL(acc, a, b) __asm__("vfmadd231ps %2, %1, %0" : "+x"(acc) : "x"(a), "x"(b))
#else
#define VL 4
#define NB 1
#define EVEN(a, b) __builtin_shuffle(a, b, (vi){0, 2, 4, 6})
#define NX 2
#define NC 2
#if defined(__x86_64__)
#define FMA(a, b, c) ((a) * (b) + (c))
#define MAX(a, b) _mm_max_ps(a, b)
#define MIN(a, b) _mm_min_ps(a, b)
#elif defined(__ARM_NEON)
#define FMA(a, b, c) vfmaq_f32(c, a, b)
#define MAX(a, b) vmaxq_f32(a, b)
#define MIN(a, b) vminq_f32(a, b)
#else
#define FMA(a, b, c) ((a) * (b) + (c))
#define MAX(a, b) F(choose)((a) > (b), a, b)
#define MIN(a, b) F(choose)((a) < (b), a, b)
#endif
#endif
#ifndef ADDMUL                          /* acc += a * b; as assembly, for GCC moves accumulators about and loads twice */
#define ADDMUL(acc, a, b) ((acc) = FMA(a, b, acc))
#endif
#undef vf
#undef vi
typedef float F(vf) __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef int32_t F(vi) __attribute__((vector_size(4 * VL), aligned(4), may_alias));
#define vf F(vf)
#define vi F(vi)
INLINE vf F(choose)(vi m, vf a, vf b) { return (vf)(((vi)a & m) | ((vi)b & ~m)); }
INLINE vf F(all)(float a) { return a - (vf){0}; }
INLINE vf F(prelu)(vf x, float slope) { vf z = {0}; return FMA(F(all)(slope), MIN(x, z), MAX(x, z)); }
#define LD(p) (*(const vf *)(p))
#define ST(p) (*(vf *)(p))

static void F(add_rows)(uint16_t *restrict d, const uint8_t *restrict p, size_t stride, size_t n, int rows)
{
    for (size_t i = 0; i < n; i++) d[i] = p[i];
    for (int y = 1; y < rows; y++) {
        p += stride;
        for (size_t i = 0; i < n; i++) d[i] = (uint16_t)(d[i] + p[i]);
    }
}

static void F(widen)(uint32_t *restrict d, const uint16_t *restrict p, size_t n, int first)
{
    if (first) for (size_t i = 0; i < n; i++) d[i] = p[i];
    else for (size_t i = 0; i < n; i++) d[i] += p[i];
}

/* PNet: 3x3 convolution 3 -> 10, PReLU and 2x2 maximum, on planes split by parity */
static void F(pnet1)(const Nets *net, const float *in, size_t ps, float *out, size_t os, int S, size_t n, const float *mc, const float *mr)
{
    for (size_t i = 0; i < n; i += VL)
        for (int o = 0; o < 10; o += NC) {
            vf acc[4][NC];                              /* row, column of the 2x2 window; output channel */
            for (int j = 0; j < NC; j++) acc[0][j] = acc[1][j] = acc[2][j] = acc[3][j] = F(all)(net->p1b[o + j]);
            const float *w = net->p1w + o;
            for (int c = 0; c < 3; c++)
#pragma GCC unroll 3
                for (int ky = 0; ky < 3; ky++) {
                    const float *r0 = in + (c * 4 + (ky & 1) * 2) * ps + i + (ky >> 1) * S;
                    const float *r1 = in + (c * 4 + ((ky + 1) & 1) * 2) * ps + i + ((ky + 1) >> 1) * S;
                    vf x[2][4] = {{LD(r0), LD(r0 + ps), LD(r0 + 1), LD(r0 + ps + 1)}, {LD(r1), LD(r1 + ps), LD(r1 + 1), LD(r1 + ps + 1)}};
#pragma GCC unroll 3
                    for (int kx = 0; kx < 3; kx++, w += 10)
#pragma GCC unroll 8
                        for (int j = 0; j < NC; j++) {
                            vf b = F(all)(w[j]);
                            ADDMUL(acc[0][j], b, x[0][kx]); ADDMUL(acc[1][j], b, x[0][kx + 1]);
                            ADDMUL(acc[2][j], b, x[1][kx]); ADDMUL(acc[3][j], b, x[1][kx + 1]);
                        }
                }
            vf m1 = LD(mc + i), m2 = LD(mr + i);        /* 0, or far below everything where the window is cut off */
            for (int j = 0; j < NC; j++) {
                float s = net->p1s[o + j];
                vf a = MAX(F(prelu)(acc[0][j], s), F(prelu)(acc[1][j], s) + m1);
                vf b = MAX(F(prelu)(acc[2][j], s), F(prelu)(acc[3][j], s) + m1) + m2;
                ST(out + (o + j) * os + i) = MAX(a, b);
            }
        }
}

/* nb*4 output channels of nx vectors: k rows of kx columns of every input channel, rows S and
 * columns step floats apart; then PReLU, if there is a slope */
INLINE void F(tile)(const float *w, size_t wblock, int cin, int k, const int kx, const float *in, size_t is, size_t S, size_t step, float *out,
                    size_t os, const int nb, const int nx, const float *bias, const float *slope)
{
    vf acc[8][NX];
#pragma GCC unroll 8
    for (int j = 0; j < 4 * nb; j++)
#pragma GCC unroll 8
        for (int x = 0; x < nx; x++) acc[j][x] = F(all)(bias ? bias[j] : 0);
    for (int ci = 0; ci < cin; ci++)
        for (int ky = 0; ky < k; ky++) {
            const float *p = in + ci * is + ky * S;
#pragma GCC unroll 3
            for (int q = 0; q < kx; q++, w += 4) {
                vf v[NX];
#pragma GCC unroll 8
                for (int x = 0; x < nx; x++) v[x] = LD(p + q * step + x * VL);
#pragma GCC unroll 8
                for (int j = 0; j < 4 * nb; j++) {
                    vf b = F(all)(w[(j >> 2) * wblock + (j & 3)]);
#pragma GCC unroll 8
                    for (int x = 0; x < nx; x++) ADDMUL(acc[j][x], b, v[x]);
                }
            }
        }
#pragma GCC unroll 8
    for (int j = 0; j < 4 * nb; j++)
#pragma GCC unroll 8
        for (int x = 0; x < nx; x++) ST(out + j * os + x * VL) = slope ? F(prelu)(acc[j][x], slope[j]) : acc[j][x];
}

/* the next four output channels, or eight if there are so many; returns how many */
INLINE int F(tiles)(const float *w, size_t wblock, int cin, int k, const int kx, const float *in, size_t is, size_t S, size_t step,
                    float *out, size_t os, int left, int nx, const float *bias, const float *slope)
{
    const int nb = NB;
#define TILE(nb, nx) F(tile)(w, wblock, cin, k, kx, in, is, S, step, out, os, nb, nx, bias, slope)
    if (left >= 4 * nb) {
        if (nx == 1) TILE(nb, 1); else if (nx == 2) TILE(nb, 2); else TILE(nb, NX);
        return 4 * nb;
    }
    if (nx == 1) TILE(1, 1); else if (nx == 2) TILE(1, 2); else TILE(1, NX);
    return 4;
#undef TILE
}

/* plain convolution, for the layers where the transform below does not pay */
static void F(conv)(const Conv *c, const float *in, size_t is, int S, float *out, size_t os, size_t n)
{
    size_t nv = (n + VL - 1) / VL, parts = (nv + NX - 1) / NX, wblock = (size_t)c->cin * c->k * c->k * 4;
    for (size_t t = 0; t < parts; t++) {                /* tiles as even as can be */
        size_t a = nv * t / parts, b = nv * (t + 1) / parts;
        const float *p = in + a * VL;
        for (int o = 0; o < c->cout;) {
            const float *w = c->w + o / 4 * wblock, *bias = c->bias + o, *slope = c->slope + o;
            float *q = out + o * os + a * VL;
            if (c->k == 3) o += F(tiles)(w, wblock, c->cin, 3, 3, p, is, S, 1, q, os, c->cout - o, (int)(b - a), bias, slope);
            else o += F(tiles)(w, wblock, c->cin, 2, 2, p, is, S, 1, q, os, c->cout - o, (int)(b - a), bias, slope);
        }
    }
}

/* 3x3 convolution, Winograd's F(3,3) over rows only: of each five input rows five sums, of each sum a 1x3 convolution,
 * of these three output rows.  That is 15 instead of 27 products, and as nothing is transformed over columns the
 * layout stays flat.  Rows past the last are taken as 0.  tmp: wino_room() floats. */
static void F(wino)(const Conv *c, const float *in, size_t is, int S, int rows, float *out, size_t os, float *tmp)
{
    int groups = (rows + 2) / 3;
    size_t nv = ((size_t)groups * S - 2 + VL - 1) / VL, parts = (nv + NX - 1) / NX, vs = (size_t)groups * S + 32;
    size_t wblock = (size_t)c->cin * 60;
    float *sums = tmp + S + 32, *prod = sums + 5 * c->cin * vs;
    const vf z = {0};
    memset(tmp, 0, sizeof(float) * (S + 32));           /* a row of zeros */
    for (int ci = 0; ci < c->cin; ci++)
        for (int g = 0; g < groups; g++) {
            const float *d = in + ci * is + (size_t)g * 3 * S, *d3 = 3 * g + 3 < rows + 2 ? d + 3 * S : tmp, *d4 = 3 * g + 4 < rows + 2 ? d + 4 * S : tmp;
            float *v = sums + ci * vs + (size_t)g * S;
            size_t ts = c->cin * vs;
            for (int x = 0; x < S; x += VL) {
                vf r0 = LD(d + x), r1 = LD(d + S + x), r2 = LD(d + 2 * S + x), r3 = LD(d3 + x), r4 = LD(d4 + x), e = r3 - r1;
                ST(v + x) = FMA(F(all)(2), r0 - r2, e);
                ST(v + ts + x) = e - (r1 + r2);
                ST(v + 2 * ts + x) = FMA(F(all)(3), r1 - r2, e);
                ST(v + 3 * ts + x) = e;
                ST(v + 4 * ts + x) = FMA(F(all)(-2), e, r4 - r2);
            }
        }
    size_t pt = vs * 8;
    for (int o = 0, did = 0; o < c->cout; o += did) {
        for (size_t t = 0; t < parts; t++) {
            size_t a = nv * t / parts, b = nv * (t + 1) / parts;
            for (int m = 0; m < 5; m++)
                did = F(tiles)(c->w + o / 4 * wblock + m * c->cin * 12, wblock, c->cin, 1, 3, sums + m * c->cin * vs + a * VL, vs, S, 1,
                         prod + m * pt + a * VL, vs, c->cout - o, (int)(b - a), NULL, NULL);
        }
        for (int j = 0; j < did; j++) {
            vf bias = F(all)(c->bias[o + j]), sl = F(all)(c->slope[o + j]);
            for (int g = 0; g < groups; g++) {
                const float *p = prod + j * vs + (size_t)g * S;
                float *q = out + (o + j) * os + (size_t)g * 3 * S;
#define PRELU(r) FMA(sl, MIN(r, z), MAX(r, z))
                for (int x = 0; x < S; x += VL) {       /* one output row after the other: each runs over the next's start */
                    vf y = LD(p + x) + (LD(p + pt + x) + LD(p + 2 * pt + x)) + LD(p + 3 * pt + x) + bias;
                    ST(q + x) = PRELU(y);
                }
                for (int x = 0; x < S; x += VL) {
                    vf y = FMA(F(all)(2), LD(p + 3 * pt + x), LD(p + pt + x) - LD(p + 2 * pt + x)) + bias;
                    ST(q + S + x) = PRELU(y);
                }
                for (int x = 0; x < S; x += VL) {
                    vf y = FMA(F(all)(4), LD(p + 3 * pt + x), LD(p + pt + x) + LD(p + 2 * pt + x)) + LD(p + 4 * pt + x) + bias;
                    ST(q + 2 * S + x) = PRELU(y);
                }
#undef PRELU
            }
        }
    }
}

/* where the difference of PNet's two logits is over limit */
static int F(phits)(const Nets *net, const float *in, size_t is, size_t n, float limit, int *hit)
{
    float d[VL];
    int hits = 0;
    for (size_t i = 0; i < n; i += VL) {
        vf s0 = F(all)(net->phb[6]), s1 = {0};
        for (int c = 0; c < 32; c += 2) {
            s0 = FMA(F(all)(net->phw[c * 7 + 6]), LD(in + c * is + i), s0);
            s1 = FMA(F(all)(net->phw[c * 7 + 13]), LD(in + (c + 1) * is + i), s1);
        }
        ST(d) = s0 + s1;
        for (int x = 0; x < VL && i + x < n; x++)
            if (d[x] > limit) hit[hits++] = (int)i + x;
    }
    return hits;
}

/* PNet's third layer at the hits once more, act[hit][32], without Winograd's transform, whose rounding depends on the
 * row: equal windows must score equally to the bit, for facenet breaks such ties by position.  Lanes are hits. */
static void F(pagain)(const Nets *net, const float *in, size_t is, int S, const int *hit, int hits, float *act)
{
    enum { H = NX * VL };
    float a1[10 * 25 * H], a2[16 * 9 * H], a3[32 * H];
    for (int from = 0; from < hits; from += H) {
        int n = hits - from < H ? hits - from : H, nx = (n + VL - 1) / VL;
        memset(a1, 0, sizeof(a1));
        for (int c = 0; c < 10; c++)
            for (int y = 0; y < 5; y++)
                for (int i = 0; i < n; i++) {
                    const float *p = in + c * is + hit[from + i] + (size_t)y * S;
                    float *q = a1 + (c * 25 + y * 5) * H + i;
                    for (int x = 0; x < 5; x++) q[x * H] = p[x];
                }
        for (int q = 0; q < 9; q++)
            for (int o = 0; o < 16;)
                o += F(tiles)(net->d2.w + o * 90, 360, 10, 3, 3, a1 + (q / 3 * 5 + q % 3) * H, 25 * H, 5 * H, H,
                              a2 + (o * 9 + q) * H, 9 * H, 16 - o, nx, net->d2.bias + o, net->d2.slope + o);
        for (int o = 0; o < 32;)
            o += F(tiles)(net->d3.w + o * 144, 576, 16, 3, 3, a2, 9 * H, 3 * H, H, a3 + o * H, H, 32 - o, nx, net->d3.bias + o, net->d3.slope + o);
        for (int i = 0; i < n; i++)
            for (int c = 0; c < 32; c++) act[32 * (size_t)(from + i) + c] = a3[c * H + i];
    }
}

/* k x k maximum with stride 2 of w x w values in rows of stride S, w2 x w2 results; nothing counts past row or column w */
static void F(pool)(const float *in, size_t is, int channels, int S, int w, int k, float *out, size_t os, int w2)
{
    float half[23 * 48 + 64];                           /* rows first, all of a channel's: a load soon after a store stalls */
    for (int c = 0; c < channels; c++) {
        for (int y = 0; y < w2; y++) {
            const float *p = in + c * is + (size_t)y * 2 * S;
            const float *p1 = 2 * y + 1 < w ? p + S : p, *p2 = k == 3 && 2 * y + 2 < w ? p + 2 * S : p;
            for (int x = 0; x < w; x += VL) ST(half + y * S + x) = MAX(MAX(LD(p + x), LD(p1 + x)), LD(p2 + x));
            half[y * S + w] = -FLT_MAX;
        }
        for (int y = 0; y < w2; y++) {
            const float *r = half + y * S;
            float *q = out + c * os + (size_t)y * w2;
            for (int x = 0; x < w2; x += VL, r += 2 * VL) {
                vf a = MAX(LD(r), LD(r + 1)), b = MAX(LD(r + VL), LD(r + VL + 1));
                if (k == 3) { a = MAX(a, LD(r + 2)); b = MAX(b, LD(r + VL + 2)); }
                ST(q + x) = EVEN(a, b);
            }
        }
    }
}

/* fully connected, nb inputs at a time so that each weight is fetched once for them */
INLINE void F(dense_tile)(const Dense *d, const float *in, float *out, int n, int o, const int nb, const int nv)
{
    vf acc[8][2];
    const float *p[8], *q[2] = {NULL, NULL};
#pragma GCC unroll 2
    for (int v = 0; v < nv; v++) q[v] = d->w + (size_t)(o + v * VL) / 16 * 16 * d->nin + (o + v * VL) % 16;
#pragma GCC unroll 8
    for (int j = 0; j < nb; j++) {
        p[j] = in + (size_t)(j < n ? j : n - 1) * d->nin;
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) acc[j][v] = LD(d->bias + o + v * VL);
    }
    for (int i = 0; i < d->nin; i++) {
        vf w[2];
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) w[v] = LD(q[v] + (size_t)i * 16);
#pragma GCC unroll 8
        for (int j = 0; j < nb; j++)
#pragma GCC unroll 2
            for (int v = 0; v < nv; v++) ADDMUL(acc[j][v], w[v], F(all)(p[j][i]));
    }
#pragma GCC unroll 8
    for (int j = 0; j < nb; j++)
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) {
            if (j >= n) continue;
            vf r = acc[j][v], z = {0};
            int at = o + v * VL;
            if (d->slope) r = FMA(LD(d->slope + at), MIN(r, z), MAX(r, z));
            ST(out + (size_t)j * d->nout + at) = r;
        }
}

static void F(dense)(const Dense *d, const float *in, float *out, int n)
{
    const int wide = VL == 16 ? 8 : 4, nv = d->nout % (2 * VL) ? 1 : 2;
    for (int g = 0; g < n; g += wide, in += wide * d->nin, out += wide * d->nout)
        for (int o = 0; o < d->nout; o += nv * VL)
            if (nv == 1) F(dense_tile)(d, in, out, n - g, o, 4 + 4 * (VL == 16), 1);
            else if (n - g <= 4 || VL < 16) F(dense_tile)(d, in, out, n - g, o, 4, 2);
            else F(dense_tile)(d, in, out, n - g, o, 8, 2);
}

#define STR2(a) #a
#define STR(a) STR2(a)
static const Kernels F(kernels) = {STR(KERNEL), F(add_rows), F(widen), F(pnet1), F(conv), F(wino), F(phits), F(pagain), F(pool), F(dense)};
#undef STR
#undef STR2
#endif
