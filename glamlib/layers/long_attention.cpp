// softmax(q k^T) v for long sequences on a CPU, forward and backward, block by block: no matrix of all pairs is kept.
//
// The method is FlashAttention's (Dao et al., NeurIPS 2022, algorithms 1 and 4; the backward pass makes the logits
// again from the kept log-sum-exp). What is done for a CPU: one block of logits stays in the second cache, the products
// keep their sums in vector registers, and exponentials are powers of two. See long_attention.py for the layouts.

#include <cmath>

namespace {

constexpr int WIDTH = 32;           // channels of a head
constexpr int BLOCK = 96;           // queries or keys of a block
constexpr int STRIPE = 4 * BLOCK;   // keys that share one update of the softmax's maximum
#ifdef __AVX512F__
constexpr int LANES = 16, ROWS = 12;  // floats in a register; rows of sums that fit into all of them
#else
constexpr int LANES = 8, ROWS = 3;
#endif
constexpr int VECTORS = WIDTH / LANES;

typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int Integers __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

inline Vector &at(float *p) { return *reinterpret_cast<Vector *>(p); }
inline const Vector &at(const float *p) { return *reinterpret_cast<const Vector *>(p); }

// c (ROWS x WIDTH) = [c +] a (ROWS x length) b (length x WIDTH); of a, b and c any steps between rows, of a also between
// columns. All else is built of it.
template <bool ADD>
inline __attribute__((always_inline)) void product(
    float *__restrict c, int c_row, const float *__restrict a, int a_row, int a_column,
    const float *__restrict b, int b_row, int length) {
    Vector sum[ROWS][VECTORS];
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
        for (int j = 0; j < VECTORS; j++) sum[i][j] = ADD ? at(c + i * c_row + j * LANES) : Vector{};
#pragma GCC unroll 1
    for (int t = 0; t < length; t++) {
        Vector right[VECTORS];
#pragma GCC unroll 4
        for (int j = 0; j < VECTORS; j++) right[j] = at(b + t * b_row + j * LANES);
#pragma GCC unroll 16
        for (int i = 0; i < ROWS; i++) {
            const float left = a[i * a_row + t * a_column];
#pragma GCC unroll 4
            for (int j = 0; j < VECTORS; j++) sum[i][j] += left * right[j];
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
        for (int j = 0; j < VECTORS; j++) at(c + i * c_row + j * LANES) = sum[i][j];
}

// c (BLOCK x BLOCK, rows c_row apart) = a (BLOCK x WIDTH) b (WIDTH x BLOCK)
void all_pairs(float *c, int c_row, const float *a, const float *b) {
    for (int j = 0; j < BLOCK; j += WIDTH)
        for (int i = 0; i < BLOCK; i += ROWS)
            product<false>(c + i * c_row + j, c_row, a + i * WIDTH, WIDTH, 1, b + j, BLOCK, WIDTH);
}

// c (BLOCK x WIDTH) += a (BLOCK x length; element (i, t) at i * a_row + t * a_column) b (length x WIDTH)
void accumulate(float *c, const float *a, int a_row, int a_column, const float *b, int length) {
    for (int i = 0; i < BLOCK; i += ROWS)
        product<true>(c + i * WIDTH, WIDTH, a + i * a_row, a_row, a_column, b, WIDTH, length);
}

// 2^x for x <= 1, at least 2^-125; not a number stays so. The integer part goes into the exponent's bits, the rest, in
// [-1/2, 1/2], into the series of 2^x = e^(x ln 2), whose seventh term is below a float's precision.
inline Vector power_of_two(Vector x) {
    x = x < -125.0f ? Vector{} - 125.0f : x;
    const Vector shifted = x + 12582912.0f;  // 1.5 * 2^23: the integer part is in the last bits
    const Vector rest = x - (shifted - 12582912.0f);
    Vector p = rest * 1.5403530e-4f + 1.3333558e-3f;
    p = p * rest + 9.6181291e-3f;
    p = p * rest + 5.5504109e-2f;
    p = p * rest + 2.4022651e-1f;
    p = p * rest + 6.9314718e-1f;
    p = p * rest + 1.0f;
    return (Vector)((Integers)p + ((Integers)shifted << 23));
}

// Columns from the first one on that belong to no key: their weights become 2^-125, of values that are zero.
void mask(float *logits, int row, int first, int end) {
    for (int i = 0; i < BLOCK; i++)
        for (int j = first; j < end; j++) logits[i * row + j] = -1e30f;
}

inline float largest(Vector x) {
    float y = x[0];
    for (int lane = 1; lane < LANES; lane++) y = x[lane] > y ? x[lane] : y;
    return y;
}

inline float total(Vector x) {
    float y = x[0];
    for (int lane = 1; lane < LANES; lane++) y += x[lane];
    return y;
}

}  // namespace

// Blocks [first, end) of the queries of one head. Rows are padded with zeros to whole blocks; `keys` counts those that
// are none. q is scaled so that weights are powers of two; k_blocks holds WIDTH x BLOCK for each block of keys.
extern "C" void attend_forward(
    const float *q, const float *k_blocks, const float *v, float *y, float *log_sums, long first, long end, long keys) {
    alignas(64) float weights[BLOCK * STRIPE];
    for (long block = first; block < end; block++) {
        alignas(64) float sums[BLOCK * WIDTH] = {};
        float maxima[BLOCK], totals[BLOCK] = {};
        for (float &maximum : maxima) maximum = -1e30f;
        for (long key = 0; key < keys; key += STRIPE) {
            const long left = keys - key;
            const int columns = left < STRIPE ? (left + BLOCK - 1) / BLOCK * BLOCK : STRIPE;
            for (int j = 0; j < columns; j += BLOCK)
                all_pairs(weights + j, STRIPE, q + block * BLOCK * WIDTH, k_blocks + (key + j) * WIDTH);
            if (left < columns) mask(weights, STRIPE, left, columns);
            for (int i = 0; i < BLOCK; i++) {
                float *row = weights + i * STRIPE;
                Vector most = at(row), sum = {};
                for (int j = LANES; j < columns; j += LANES) most = at(row + j) > most ? at(row + j) : most;
                const float maximum = std::fmax(maxima[i], largest(most));
                const float shrink = std::exp2(maxima[i] - maximum);
                for (int j = 0; j < columns; j += LANES) sum += at(row + j) = power_of_two(at(row + j) - maximum);
                for (int j = 0; j < WIDTH; j += LANES) at(sums + i * WIDTH + j) *= shrink;
                totals[i] = totals[i] * shrink + total(sum);
                maxima[i] = maximum;
            }
            accumulate(sums, weights, STRIPE, 1, v + key * WIDTH, columns);
        }
        for (int i = 0; i < BLOCK; i++) {
            const long query = block * BLOCK + i;
            for (int j = 0; j < WIDTH; j += LANES) at(y + query * WIDTH + j) = at(sums + i * WIDTH + j) / totals[i];
            log_sums[query] = maxima[i] + std::log2(totals[i]);
        }
    }
}

// What blocks [first, end) of the queries of one head give: dq is theirs alone, dk and dv are added to. `shares` is the
// sum of y * dy over a query's channels; log_sums of padded queries are so large that their weights vanish.
extern "C" void attend_backward(
    const float *q, const float *k, const float *k_blocks, const float *v_blocks, const float *dy,
    const float *log_sums, const float *shares, float *dq, float *dk, float *dv, long first, long end, long keys) {
    alignas(64) float weights[BLOCK * BLOCK], slopes[BLOCK * BLOCK];  // slopes: gradients of the logits
    for (long key = 0; key < keys; key += BLOCK) {
        for (long query = first * BLOCK; query < end * BLOCK; query += BLOCK) {
            all_pairs(weights, BLOCK, q + query * WIDTH, k_blocks + key * WIDTH);
            all_pairs(slopes, BLOCK, dy + query * WIDTH, v_blocks + key * WIDTH);
            if (keys - key < BLOCK) mask(weights, BLOCK, keys - key, BLOCK);
            for (int i = 0; i < BLOCK; i++)
                for (int j = i * BLOCK; j < (i + 1) * BLOCK; j += LANES) {
                    at(weights + j) = power_of_two(at(weights + j) - log_sums[query + i]);
                    at(slopes + j) = at(weights + j) * (at(slopes + j) - shares[query + i]);
                }
            accumulate(dv + key * WIDTH, weights, 1, BLOCK, dy + query * WIDTH, BLOCK);
            accumulate(dk + key * WIDTH, slopes, 1, BLOCK, q + query * WIDTH, BLOCK);
            accumulate(dq + query * WIDTH, slopes, BLOCK, 1, k + key * WIDTH, BLOCK);
        }
    }
}
