/* RMSNorm, softmax and attention, forward and backward, in plain loops: small kernels to be checked.

   Arrays are flat and in C order.  REAL is float or double, whichever the compiler is told:

       cc -O2 -shared -fPIC -DREAL=double -o kernels.so kernels.c -lm                              */

#include <math.h>
#include <stdint.h>

#ifndef REAL
#define REAL float
#endif

/* y = gamma * x / sqrt(mean(x^2) + eps) for N rows of D numbers; keeps r, the factor of each row. */
void rmsnorm(REAL *y, REAL *r, const REAL *x, const REAL *gamma, int N, int D, REAL eps) {
    for (int n = 0; n < N; n++) {
        REAL sum = 0;
        for (int d = 0; d < D; d++) sum += x[n * D + d] * x[n * D + d];
        r[n] = 1 / sqrt(sum / D + eps);
        for (int d = 0; d < D; d++) y[n * D + d] = gamma[d] * x[n * D + d] * r[n];
    }
}

/* dx = r (g - xhat mean(g xhat)) with g = gamma * dy and xhat = x r;   dgamma = sum of dy * xhat. */
void rmsnorm_backward(REAL *dx, REAL *dgamma, const REAL *dy, const REAL *r, const REAL *x,
                      const REAL *gamma, int N, int D) {
    for (int d = 0; d < D; d++) dgamma[d] = 0;
    for (int n = 0; n < N; n++) {
        REAL mean = 0;
        for (int d = 0; d < D; d++) mean += gamma[d] * dy[n * D + d] * x[n * D + d] * r[n] / D;
        for (int d = 0; d < D; d++) {
            REAL xhat = x[n * D + d] * r[n];
            dx[n * D + d] = r[n] * (gamma[d] * dy[n * D + d] - xhat * mean);
            dgamma[d] += dy[n * D + d] * xhat;
        }
    }
}

/* The same without its second term: the mistake of taking r for a constant. */
void rmsnorm_backward_wrong(REAL *dx, REAL *dgamma, const REAL *dy, const REAL *r, const REAL *x,
                            const REAL *gamma, int N, int D) {
    rmsnorm_backward(dx, dgamma, dy, r, x, gamma, N, D);
    for (int i = 0; i < N * D; i++) dx[i] = r[i / D] * gamma[i % D] * dy[i];
}

/* p = softmax of each of N rows of S numbers, over the entries where the mask is not 0. */
void softmax(REAL *p, const REAL *x, const uint8_t *mask, int N, int S) {
    for (int n = 0; n < N; n++) {
        REAL top = -INFINITY, sum = 0;
        for (int s = n * S; s < (n + 1) * S; s++)
            if ((!mask || mask[s]) && x[s] > top) top = x[s];
        for (int s = n * S; s < (n + 1) * S; s++) sum += p[s] = !mask || mask[s] ? exp(x[s] - top) : 0;
        for (int s = n * S; s < (n + 1) * S; s++)
            if (sum > 0) p[s] /= sum; /* a row that sees nothing stays 0 */
    }
}

/* dx = p (dp - sum of dp p) */
void softmax_backward(REAL *dx, const REAL *dp, const REAL *p, int N, int S) {
    for (int n = 0; n < N; n++) {
        REAL sum = 0;
        for (int s = n * S; s < (n + 1) * S; s++) sum += dp[s] * p[s];
        for (int s = n * S; s < (n + 1) * S; s++) dx[s] = p[s] * (dp[s] - sum);
    }
}

/* y = p v,   p = softmax(q k^T / sqrt(E)) over the mask; head h reads keys and values h / (H / K).
   q (B, H, T, E), k (B, K, S, E), v (B, K, S, F), mask (B, H, T, S) -> y (B, H, T, F).  Keeps p. */
void attention(REAL *y, REAL *p, const REAL *q, const REAL *k, const REAL *v, const uint8_t *mask,
               int B, int H, int T, int K, int S, int E, int F) {
    for (int row = 0; row < B * H * T; row++) {
        int b = row / T / H, group = b * K + row / T % H / (H / K);
        const REAL *keys = k + group * S * E, *values = v + group * S * F;
        for (int s = 0; s < S; s++) {
            REAL score = 0;
            for (int e = 0; e < E; e++) score += q[row * E + e] * keys[s * E + e];
            p[row * S + s] = score / sqrt((REAL)E);
        }
        softmax(p + row * S, p + row * S, mask ? mask + row * S : 0, 1, S);
        for (int f = 0; f < F; f++) {
            y[row * F + f] = 0;
            for (int s = 0; s < S; s++) y[row * F + f] += p[row * S + s] * values[s * F + f];
        }
    }
}

/* dp = dy v^T;   da = p (dp - sum of dp p) / sqrt(E);   dq = da k,   dk = da^T q,   dv = p^T dy.
   dq, dk and dv arrive as zeros. */
void attention_backward(REAL *dq, REAL *dk, REAL *dv, const REAL *dy, const REAL *p, const REAL *q,
                        const REAL *k, const REAL *v, int B, int H, int T, int K, int S, int E,
                        int F) {
    for (int row = 0; row < B * H * T; row++) {
        int b = row / T / H, group = b * K + row / T % H / (H / K);
        REAL sum = 0;
        for (int pass = 0; pass < 2; pass++) /* first the sum of dp p, then what needs it */
            for (int s = 0; s < S; s++) {
                REAL dp = 0, weight = p[row * S + s];
                const REAL *key = k + (group * S + s) * E, *value = v + (group * S + s) * F;
                for (int f = 0; f < F; f++) dp += dy[row * F + f] * value[f];
                if (pass == 0) {
                    sum += dp * weight;
                    continue;
                }
                REAL da = weight * (dp - sum) / sqrt((REAL)E);
                for (int e = 0; e < E; e++) {
                    dq[row * E + e] += da * key[e];
                    dk[(group * S + s) * E + e] += da * q[row * E + e];
                }
                for (int f = 0; f < F; f++)
                    dv[(group * S + s) * F + f] += weight * dy[row * F + f];
            }
    }
}
