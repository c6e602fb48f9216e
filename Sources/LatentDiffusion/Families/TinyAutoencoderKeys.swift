import LatentDiffusionWeights
import Tensor

/// diffusers' names for the tensors of a tiny autoencoder (`AutoencoderTiny`), as the original (TAESD) numbers its layers and as diffusers does.
///
/// The original has a file for each half, and its decoder begins with a clamp that has a number and no parameters. Source: TAESD's `taesd.py`.
enum TinyAutoencoderKeys {
  typealias Tensors = [String: StoredTensor]

  private static let prefixes = [
    ("encoder", ["taesd_encoder.", "first_stage_model.taesd_encoder.", "encoder.layers."]),
    ("decoder", ["taesd_decoder.", "first_stage_model.taesd_decoder.", "decoder.layers."]),
  ]

  /// The tensors of a file, and the names that these have in it; nil where there is no tiny autoencoder.
  static func tensors(_ all: Tensors) -> (tensors: Tensors, owned: Set<String>)? {
    var result: Tensors = [:], owned: Set<String> = []
    for (half, prefixes) in prefixes {
      for prefix in prefixes {
        let part = all.below([prefix])
        guard hasBlocks(part) else { continue }
        result.merge(numbered(part, half)) { first, _ in first }
        owned.formUnion(all.keys.filter { $0.hasPrefix(prefix) })
      }
    }
    if result.isEmpty, hasBlocks(all), let half = half(all) {
      let part = all.filter { number(of: $0.key) != nil }
      (result, owned) = (numbered(part, half), Set(part.keys))
    }
    return result.isEmpty ? nil : (result, owned)
  }

  static func isTiny(_ tensors: Tensors) -> Bool {
    tensors.keys.contains { $0.hasPrefix("decoder.layers.") || $0.hasPrefix("encoder.layers.") }
  }

  /// Whether there are numbered layers, of which some are blocks of convolutions.
  private static func hasBlocks(_ tensors: Tensors) -> Bool {
    tensors.keys.contains { number(of: $0) != nil && $0.hasSuffix(".conv.0.weight") }
  }

  private static func number(of name: String) -> Int? { name.split(separator: ".").first.flatMap { Int($0) } }

  /// The half that a file without prefixes holds: an encoder takes pictures, and a decoder gives them.
  private static func half(_ tensors: Tensors) -> String? {
    let convolutions = tensors.filter { $0.value.shape.rank == 4 && !$0.key.contains(".conv.") }
    let numbers = convolutions.keys.compactMap(number)
    guard let first = numbers.min(), let last = numbers.max() else { return nil }
    if tensors["\(last).weight"]?.shape.extent(0) == 3 { return "decoder" }
    return tensors["\(first).weight"]?.shape.extent(1) == 3 ? "encoder" : nil
  }

  /// The layers as diffusers numbers them: without the original's clamp, the decoder begins with a convolution.
  private static func numbered(_ tensors: Tensors, _ half: String) -> Tensors {
    let isShifted = half == "decoder" && tensors.keys.compactMap(number).min() == 1
    return tensors.reduce(into: [:]) { result, entry in
      let rest = entry.key.drop { $0 != "." }
      let name = number(of: entry.key).map { "\(isShifted ? $0 - 1 : $0)\(rest)" } ?? entry.key
      result["\(half).layers.\(name)"] = entry.value
    }
  }
}

extension DerivedConfiguration {
  /// The keys of `AutoencoderTiny`'s configuration.
  struct TinyAutoencoder: DerivedComponent {
    static let guesses = ConfigurationGuesses(["scaling_factor", "act_fn", "latent_magnitude", "latent_shift"])
    let _class_name = "AutoencoderTiny"
    let encoder_block_out_channels: [Int]
    let decoder_block_out_channels: [Int]
    let num_encoder_blocks: [Int]
    let num_decoder_blocks: [Int]
    let latent_channels: Int
    let upsampling_scaling_factor: Int
    let act_fn = "relu"
    let scaling_factor = 1.0
    let latent_magnitude = 3
    let latent_shift = 0.5
  }

  /// - Parameter tensors: under diffusers' names; those of the encoder may be missing.
  static func tinyAutoencoder(_ tensors: [String: StoredTensor]) throws(Missing) -> TinyAutoencoder {
    func extent(_ name: String, _ axis: Int) throws(Missing) -> Int { try tensors.extent(name, axis, of: "tiny autoencoder") }
    let decoder = levels(tensors, "decoder.layers."), encoder = levels(tensors, "encoder.layers.")
    guard !decoder.isEmpty else { throw Missing(component: "tiny autoencoder", what: "the decoder; give the decoder's file") }
    let channels = try extent("decoder.layers.0.weight", 0)
    // What enlarges a decoded picture is a power of what reduces an encoded one.
    let (steps, reductions) = (max(decoder.count - 1, 1), encoder.count - 1)
    return TinyAutoencoder(
      encoder_block_out_channels: Array(
        repeating: encoder.isEmpty ? channels : try extent("encoder.layers.0.weight", 0), count: (encoder.isEmpty ? decoder : encoder).count
      ),
      decoder_block_out_channels: Array(repeating: channels, count: decoder.count),
      num_encoder_blocks: encoder.isEmpty ? decoder.reversed() : encoder, num_decoder_blocks: decoder,
      latent_channels: try extent("decoder.layers.0.weight", 1),
      upsampling_scaling_factor: reductions > 0 && reductions <= 16 && reductions % steps == 0 ? 1 << (reductions / steps) : 2)
  }

  /// The blocks of each level of a half: between two convolutions.
  private static func levels(_ tensors: [String: StoredTensor], _ prefix: String) -> [Int] {
    var isBlock: [Int: Bool] = [:]
    for name in tensors.keys where name.hasPrefix(prefix) {
      let parts = name.dropFirst(prefix.count).split(separator: ".")
      if let number = parts.first.flatMap({ Int($0) }) { isBlock[number] = parts.count > 2 }
    }
    var counts: [Int] = []
    for (_, isBlock) in isBlock.sorted(by: { $0.key < $1.key }) {
      if isBlock, !counts.isEmpty { counts[counts.count - 1] += 1 } else { counts.append(0) }
    }
    // After the last convolution there is no level.
    return Array(counts.dropLast())
  }
}
