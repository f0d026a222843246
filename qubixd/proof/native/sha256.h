/* SHA-256 of whole words and the streams drawn from it, for the processor and for kernels.cu alike.

   Digests are eight 32-bit words; as bytes they are big-endian, like everywhere. A stream is
   SHA-256(key, tag, row, block), each number as 4 big-endian bytes: 44 bytes, one compression. */
#ifndef QUBIX_SHA256_H
#define QUBIX_SHA256_H

typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed char s8;

#ifdef __CUDACC__
#define SHA_FN static __device__ __forceinline__
#define SHA_TABLE static __constant__
#else
#define SHA_FN static inline
#define SHA_TABLE static const
#endif

enum { TAG_A = 1, TAG_B = 2, TAG_R = 3 };
enum { STREAM_BYTES = 32, SEGMENT_WORDS = 256, CHUNK_WORDS = 16 };

SHA_TABLE u32 SHA_K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

SHA_FN u32 sha_swap(u32 v)
{
    return (v >> 24) | ((v >> 8) & 0xff00u) | ((v << 8) & 0xff0000u) | (v << 24);
}

#define SHA_ROT(v, by) (((v) >> (by)) | ((v) << (32 - (by))))

SHA_FN void sha_begin(u32 h[8])
{
    h[0] = 0x6a09e667u; h[1] = 0xbb67ae85u; h[2] = 0x3c6ef372u; h[3] = 0xa54ff53au;
    h[4] = 0x510e527fu; h[5] = 0x9b05688cu; h[6] = 0x1f83d9abu; h[7] = 0x5be0cd19u;
}

/* One compression; `w` is used up. */
SHA_FN void sha_block(u32 h[8], u32 w[16])
{
    u32 a = h[0], b = h[1], c = h[2], d = h[3], e = h[4], f = h[5], g = h[6], k = h[7];
#pragma unroll 1
    for (int from = 0; from < 64; from += 16) { /* a quarter is unrolled: the kernels stay small */
#pragma unroll
        for (int t = 0; t < 16; t++) {
            if (from) {
                u32 p = w[(t + 1) & 15], q = w[(t + 14) & 15];
                w[t] += (SHA_ROT(p, 7) ^ SHA_ROT(p, 18) ^ (p >> 3)) + w[(t + 9) & 15] +
                        (SHA_ROT(q, 17) ^ SHA_ROT(q, 19) ^ (q >> 10));
            }
            u32 x = k + (SHA_ROT(e, 6) ^ SHA_ROT(e, 11) ^ SHA_ROT(e, 25)) + ((e & f) ^ (~e & g)) +
                    SHA_K[from + t] + w[t];
            u32 y = (SHA_ROT(a, 2) ^ SHA_ROT(a, 13) ^ SHA_ROT(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
            k = g; g = f; f = e; e = d + x; d = c; c = b; b = a; a = x + y;
        }
    }
    h[0] += a; h[1] += b; h[2] += c; h[3] += d; h[4] += e; h[5] += f; h[6] += g; h[7] += k;
}

/* SHA-256 of `count` words; `little` says that they lie in memory as little-endian numbers. */
SHA_FN void sha_words(u32 out[8], const u32 *words, u32 count, int little)
{
    u32 blocks = (count + 18) / 16, h[8];
    sha_begin(h);
    for (u32 b = 0; b < blocks; b++) {
        u32 w[16];
#pragma unroll
        for (u32 i = 0; i < 16; i++) {
            u32 at = b * 16 + i;
            u32 v = at < count ? words[at] : at == count ? 0x80000000u : at == blocks * 16 - 1 ? count * 32 : 0;
            w[i] = little && at < count ? sha_swap(v) : v;
        }
        sha_block(h, w);
    }
    for (int i = 0; i < 8; i++) out[i] = h[i];
}

/* Block `t` of a stream: 32 bytes. */
SHA_FN void sha_stream(u32 out[8], const u32 key[8], u32 tag, u32 row, u32 t)
{
    u32 w[16];
#pragma unroll
    for (int i = 0; i < 8; i++) w[i] = key[i];
    w[8] = tag; w[9] = row; w[10] = t; w[11] = 0x80000000u;
    w[12] = w[13] = w[14] = 0; w[15] = 352;
    sha_begin(out);
    sha_block(out, w);
}

#endif
