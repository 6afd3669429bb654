/* One step of Adadelta in one pass over memory: 28 bytes for each parameter, four read and three written floats. */
#include <math.h>

void step(int leaves, const long *sizes, float **theta, const float **g, float **e_g2, float **e_delta2,
          float lr, float rho, float eps, int threads)
{
    #pragma omp parallel num_threads(threads) if (threads > 1)
    for (int k = 0; k < leaves; k++) {
        float *restrict x = theta[k], *restrict a = e_g2[k], *restrict b = e_delta2[k];
        const float *restrict gradient = g[k];
        #pragma omp for simd schedule(static) nowait
        for (long i = 0; i < sizes[k]; i++) {
            float gi = gradient[i];
            float square = rho * a[i] + (1 - rho) * gi * gi;
            float delta = sqrtf((b[i] + eps) / (square + eps)) * gi;
            a[i] = square;
            b[i] = rho * b[i] + (1 - rho) * delta * delta;
            x[i] -= lr * delta;
        }
    }
}
