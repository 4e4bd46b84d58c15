#include "weights/blocks.h"

#include <cstring>

#include "vector/half.h"

namespace vivace {

namespace {

float read_half(const uint8_t* p) {
  uint16_t half;
  std::memcpy(&half, p, sizeof half);
  return half_to_float(half);
}

void set_scale(Group* out, float scale, float minimum) {
  out->scale[0] = out->scale[1] = scale;
  out->minimum = minimum;
}

// 16 bytes whose low nibbles are columns 0 to 15 and whose high ones are columns 16 to 31, to a byte a column.
void spread_nibbles(const uint8_t* p, uint8_t* codes) {
  for (int i = 0; i < 16; ++i) {
    codes[i] = p[i] & 15;
    codes[i + 16] = p[i] >> 4;
  }
}

void read_q4_0(const uint8_t* row, int group, Group* out) {
  const uint8_t* block = row + group * 18;
  set_scale(out, read_half(block), 0.0f);
  std::memcpy(out->codes, block + 2, 16);
}

void read_q4_1(const uint8_t* row, int group, Group* out) {
  const uint8_t* block = row + group * 20;
  set_scale(out, read_half(block), read_half(block + 2));
  std::memcpy(out->codes, block + 4, 16);
}

void add_fifth_bits(const uint8_t* p, uint8_t* codes) {
  uint32_t bits;
  std::memcpy(&bits, p, sizeof bits);
  for (int i = 0; i < 32; ++i) codes[i] |= static_cast<uint8_t>(((bits >> i) & 1u) << 4);
}

void offset_codes(Group* out, int offset) {
  for (uint8_t& code : out->codes) code = static_cast<uint8_t>(code + offset);
}

void read_q5_0(const uint8_t* row, int group, Group* out) {
  const uint8_t* block = row + group * 22;
  set_scale(out, read_half(block), 0.0f);
  spread_nibbles(block + 6, out->codes);
  add_fifth_bits(block + 2, out->codes);
  offset_codes(out, 128 - 16);
}

void read_q5_1(const uint8_t* row, int group, Group* out) {
  const uint8_t* block = row + group * 24;
  set_scale(out, read_half(block), read_half(block + 2));
  spread_nibbles(block + 8, out->codes);
  add_fifth_bits(block + 4, out->codes);
  offset_codes(out, 128);
}

// Two high bits of column i in byte i % 8, at bit 4 * (i % 16 / 8) + 2 * (i / 16).
void read_q6_0(const uint8_t* row, int group, Group* out) {
  const uint8_t* block = row + group * 26;
  set_scale(out, read_half(block), 0.0f);
  spread_nibbles(block + 10, out->codes);
  for (int i = 0; i < 32; ++i) {
    const int high = (block[2 + i % 8] >> (4 * (i % 16 / 8) + 2 * (i / 16))) & 3;
    out->codes[i] |= static_cast<uint8_t>(high << 4);
  }
  offset_codes(out, 128 - 32);
}

void read_q8_0(const uint8_t* row, int group, Group* out) {
  const uint8_t* block = row + group * 34;
  set_scale(out, read_half(block), 0.0f);
  std::memcpy(out->codes, block + 2, 32);
  offset_codes(out, 128);
}

// A block of 64 columns: one scale, then the bytes of codes of two blocks of the narrow format.
template <ReadGroup kNarrow, int kCodeBytes>
void read_wide(const uint8_t* row, int group, Group* out) {
  const uint8_t* block = row + group / 2 * (2 + 2 * kCodeBytes);
  uint8_t narrow[2 + kCodeBytes];
  std::memcpy(narrow, block, 2);
  std::memcpy(narrow + 2, block + 2 + group % 2 * kCodeBytes, kCodeBytes);
  kNarrow(narrow, 0, out);
}

// Signed codes, and what the code 0 stands for as the minimum.
void read_q8_m(const uint8_t* row, int group, Group* out) {
  const uint8_t* block = row + group * 36;
  set_scale(out, read_half(block), read_half(block + 2));
  std::memcpy(out->codes, block + 4, 32);
  offset_codes(out, 128);
}

// Six-bit scale and minimum number `group` (0 to 7) out of the 12 packed bytes of a K block.
void read_k_scale(const uint8_t* packed, int group, int* scale, int* minimum) {
  if (group < 4) {
    *scale = packed[group] & 63;
    *minimum = packed[group + 4] & 63;
  } else {
    *scale = (packed[group + 4] & 15) | (packed[group - 4] >> 6) << 4;
    *minimum = (packed[group + 4] >> 4) | (packed[group] >> 6) << 4;
  }
}

void set_k_scale(const uint8_t* block, int group, Group* out) {
  int scale, minimum;
  read_k_scale(block + 4, group, &scale, &minimum);
  set_scale(out, read_half(block) * static_cast<float>(scale), -read_half(block + 2) * static_cast<float>(minimum));
}

// 256 columns: groups 2i and 2i + 1 are the low and high nibbles of 32 bytes.
int k_nibble(const uint8_t* nibbles, int group, int column) {
  const uint8_t byte = nibbles[group / 2 * 32 + column];
  return group % 2 ? byte >> 4 : byte & 15;
}

void read_q4_k(const uint8_t* row, int group, Group* out) {
  const uint8_t* block = row + group / 8 * 144;
  group %= 8;
  set_k_scale(block, group, out);
  for (int i = 0; i < 16; ++i)
    out->codes[i] = static_cast<uint8_t>(k_nibble(block + 16, group, i) | k_nibble(block + 16, group, i + 16) << 4);
}

void read_q5_k(const uint8_t* row, int group, Group* out) {
  const uint8_t* block = row + group / 8 * 176;
  group %= 8;
  set_k_scale(block, group, out);
  for (int i = 0; i < 32; ++i) {
    const int fifth = (block[16 + i] >> group) & 1;
    out->codes[i] = static_cast<uint8_t>((k_nibble(block + 48, group, i) | fifth << 4) + 128);
  }
}

// 256 columns in two halves of 128: low nibbles of 64 bytes, two high bits of 32 bytes, a signed scale for 16 columns.
void read_q6_k(const uint8_t* row, int group, Group* out) {
  const uint8_t* block = row + group / 8 * 210;
  const int half = group % 8 / 4, quarter = group % 4;
  const uint8_t* low = block + half * 64 + (quarter % 2) * 32;
  const uint8_t* high = block + 128 + half * 32;
  const float scale = read_half(block + 208);
  for (int i = 0; i < 32; ++i) {
    int nibble = quarter >= 2 ? low[i] >> 4 : low[i] & 15;
    int code = nibble | ((high[i] >> (2 * quarter)) & 3) << 4;
    out->codes[i] = static_cast<uint8_t>(code + 128 - 32);
  }
  for (int part = 0; part < 2; ++part) {
    out->scale[part] = scale * static_cast<float>(static_cast<int8_t>(block[192 + half * 8 + quarter * 2 + part]));
  }
  out->minimum = 0.0f;
}

}  // namespace

ReadGroup group_reader(SourceFormat format) {
  switch (format) {
    case SourceFormat::kQ4_0:
      return read_q4_0;
    case SourceFormat::kQ4_1:
      return read_q4_1;
    case SourceFormat::kQ5_0:
      return read_q5_0;
    case SourceFormat::kQ5_1:
      return read_q5_1;
    case SourceFormat::kQ6_0:
      return read_q6_0;
    case SourceFormat::kQ8_0:
      return read_q8_0;
    case SourceFormat::kQ4_64:
      return read_wide<read_q4_0, 16>;
    case SourceFormat::kQ5_64:
      return read_wide<read_q5_0, 20>;
    case SourceFormat::kQ6_64:
      return read_wide<read_q6_0, 24>;
    case SourceFormat::kQ8_64:
      return read_wide<read_q8_0, 32>;
    case SourceFormat::kQ8_M:
      return read_q8_m;
    case SourceFormat::kQ4_K:
      return read_q4_k;
    case SourceFormat::kQ5_K:
      return read_q5_k;
    case SourceFormat::kQ6_K:
      return read_q6_k;
    default:
      return nullptr;
  }
}

}  // namespace vivace
