import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// A single file of the original code's Stable Video Diffusion is the folder of diffusers, tensor by tensor. The file is made here, by the names that
/// diffusers' `convert_svd_to_diffusers.py` reads for the U-Net, and those of the original `VideoDecoder`.
@Suite struct VideoCheckpointTests {
  private static let folder = VideoCase.model.folder
  private typealias Tensors = [String: Tensor]

  private static func tensors(_ component: String) throws -> Tensors {
    let files = try FileManager.default.contentsOfDirectory(atPath: folder.appending(path: component).path)
    return try files.filter { $0.hasSuffix(".safetensors") }.reduce(into: [:]) { all, file in
      all.merge(try readTensors(folder.appending(path: "\(component)/\(file)"))) { first, _ in first }
    }
  }

  /// The tiny U-Net's modules. The original numbers the blocks of all levels.
  private static let unetPlaces = [
    "conv_in": "input_blocks.0.0", "down_blocks.0.resnets.0": "input_blocks.1.0", "down_blocks.0.attentions.0": "input_blocks.1.1",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op", "down_blocks.1.resnets.0": "input_blocks.3.0",
    "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1", "mid_block.resnets.1": "middle_block.2",
    "up_blocks.0.resnets.0": "output_blocks.0.0", "up_blocks.0.resnets.1": "output_blocks.1.0",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.1.1.conv", "up_blocks.1.resnets.0": "output_blocks.2.0",
    "up_blocks.1.attentions.0": "output_blocks.2.1", "up_blocks.1.resnets.1": "output_blocks.3.0",
    "up_blocks.1.attentions.1": "output_blocks.3.1", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2", "conv_norm_out": "out.0", "conv_out": "out.2",
  ]

  private static let unetParts = [
    ("temporal_res_block.", "time_stack."), ("spatial_res_block.", ""), ("norm1.", "in_layers.0."), ("conv1.", "in_layers.2."),
    ("time_emb_proj.", "emb_layers.1."), ("norm2.", "out_layers.0."), ("conv2.", "out_layers.3."), ("conv_shortcut.", "skip_connection."),
  ]

  private static func originalUNet(_ tensors: Tensors) throws -> Tensors {
    try tensors.reduce(into: [:]) { all, entry in
      let place = try #require(unetPlaces.keys.first { entry.key.hasPrefix($0 + ".") }, "\(entry.key)")
      var inside = String(entry.key.dropFirst(place.count + 1))
      if place.contains("resnets") {
        for (new, old) in unetParts { inside = inside.replacing(new, with: old) }
      } else if place.contains("attentions") {
        inside = inside.replacing("temporal_transformer_blocks.", with: "time_stack.")
          .replacing("time_pos_embed.linear_1", with: "time_pos_embed.0").replacing("time_pos_embed.linear_2", with: "time_pos_embed.2")
      }
      all["model.diffusion_model.\(unetPlaces[place] ?? "").\(inside)"] = entry.value
    }
  }

  /// Of four levels, which the original's decoder counts from the other end.
  private static func originalAutoencoder(_ tensors: Tensors) -> Tensors {
    tensors.reduce(into: [:]) { all, entry in
      var name = entry.key
      for (level, up) in (0..<4).map({ ($0, 3 - $0) }) {
        for layer in 0..<3 {
          name = name.replacing("up_blocks.\(level).resnets.\(layer).", with: "up.\(up).block.\(layer).")
          name = name.replacing("down_blocks.\(level).resnets.\(layer).", with: "down.\(level).block.\(layer).")
        }
        name = name.replacing("up_blocks.\(level).upsamplers.0.", with: "up.\(up).upsample.")
        name = name.replacing("down_blocks.\(level).downsamplers.0.", with: "down.\(level).downsample.")
      }
      for (new, old) in [
        ("mid_block.resnets.0.", "mid.block_1."), ("mid_block.resnets.1.", "mid.block_2."), ("mid_block.attentions.0.", "mid.attn_1."),
        ("group_norm.", "norm."), ("to_q.", "q."), ("to_k.", "k."), ("to_v.", "v."), ("to_out.0.", "proj_out."),
        ("conv_shortcut.", "nin_shortcut."), ("conv_norm_out.", "norm_out."), ("time_conv_out.", "conv_out.time_mix_conv."),
        ("spatial_res_block.", ""), ("time_mixer.mix_factor", "mix_factor"), ("temporal_res_block.norm1.", "time_stack.in_layers.0."),
        ("temporal_res_block.conv1.", "time_stack.in_layers.2."), ("temporal_res_block.norm2.", "time_stack.out_layers.0."),
        ("temporal_res_block.conv2.", "time_stack.out_layers.3."),
      ] { name = name.replacing(new, with: old) }
      // A linear layer of diffusers is a 1×1 convolution of the original.
      let isProjection = name.contains(".attn_1.") && name.hasSuffix("weight") && !name.contains(".norm.")
      let tensor = isProjection ? entry.value.reshaped(Shape(entry.value.shape.dimensions + [1, 1])) : entry.value
      all[(name.hasPrefix("decoder.") ? "first_stage_model." : "conditioner.embedders.3.encoder.") + name] = tensor
    }
  }

  private static func originalTower(_ tensors: Tensors) throws -> Tensors {
    var all: Tensors = [:]
    for (key, tensor) in tensors {
      var name = key.replacing("vision_model.", with: "")
      if name.contains("k_proj") || name.contains("v_proj") { continue }
      var tensor = tensor
      if name.contains("q_proj") {
        tensor = Tensor.concatenated(
          [tensor] + (try ["k_proj", "v_proj"].map { try #require(tensors[key.replacing("q_proj", with: $0)]) }), axis: 0)
        name = name.replacing("self_attn.q_proj.", with: "attn.in_proj_")
      }
      if name == "visual_projection.weight" { (name, tensor) = ("proj", tensor.permuted([1, 0])) }
      for (new, old) in [
        ("encoder.layers.", "transformer.resblocks."), ("self_attn.", "attn."), ("layer_norm1.", "ln_1."), ("layer_norm2.", "ln_2."),
        ("mlp.fc1.", "mlp.c_fc."), ("mlp.fc2.", "mlp.c_proj."), ("embeddings.patch_embedding.", "conv1."), ("pre_layrnorm.", "ln_pre."),
        ("post_layernorm.", "ln_post."), ("embeddings.class_embedding", "class_embedding"),
        ("embeddings.position_embedding.weight", "positional_embedding"),
      ] { name = name.replacing(new, with: old) }
      all["conditioner.embedders.0.open_clip.model.visual." + name] = tensor
    }
    return all
  }

  private static func write(to url: URL, _ change: (inout Tensors) -> Void = { _ in }) throws {
    var all = try originalUNet(tensors("unet"))
    all.merge(originalAutoencoder(try tensors("vae"))) { first, _ in first }
    all.merge(try originalTower(tensors("image_encoder"))) { first, _ in first }
    change(&all)
    try SafetensorsWriter.write(all, to: url)
  }

  @Test(.compares("Stable Video Diffusion under the names of the original code", in: .files, with: "diffusers", unit: .equality))
  func aFileIsTheFolder() throws {
    let temporary = try TemporaryFolder(), url = temporary.url.appending(path: "svd.safetensors")
    try Self.write(to: url) {
      // What stays of the text tower, and the decoder that the conditioning does not use.
      $0["conditioner.embedders.0.open_clip.model.logit_scale"] = Tensor([1])
      $0["conditioner.embedders.3.encoder.decoder.conv_in.weight"] = Tensor([1])
    }
    let files = try ModelFiles.open(url)
    #expect(files.className == "StableVideoDiffusionPipeline" && files.leftOver == [])
    for (component, guessed) in [
      ("unet", ["num_frames", "num_attention_heads", "sample_size"]), ("vae", ["sample_size", "force_upcast"]),
      ("image_encoder", ["hidden_act", "num_attention_heads"]), ("scheduler", []),
    ] as [(String, Set<String>)] {
      let (found, expected) = (try JSONValue.of(files, component), try JSONValue.of(ModelFiles.open(Self.folder), component))
      for (key, value) in found where !key.hasPrefix("_") && !guessed.contains(key) {
        #expect(expected[key].map { value.says($0) } ?? false, "\(component) \(key): \(value), not \(String(describing: expected[key]))")
      }
      guard component != "scheduler" else { continue }
      let own = try ModelFiles.open(Self.folder).weights(of: component), weights = try files.weights(of: component)
      expectSame(weights.names, own.names)
      for (name, tensor) in try Self.tensors(component) {
        let short = name.replacing("vision_model.", with: "")
        expectSame(try weights.tensor(short, shape: tensor.shape).decoded().elements, tensor.elements, name)
      }
    }
    let model = try DiffusionModel.load(from: url)
    #expect(model.warnings.isEmpty && model.reports.values.allSatisfy { $0.unused.isEmpty })
  }

  @Test func whatIsMissingIsSaid() throws {
    let temporary = try TemporaryFolder(), url = temporary.url.appending(path: "svd.safetensors")
    for (prefix, words) in [
      ("conditioner.embedders.0.", "image encoder"), ("first_stage_model.decoder.conv_in", "autoencoder"),
      ("model.diffusion_model.label_emb.", "U-Net lacks add_embedding"),
    ] {
      try Self.write(to: url) { all in all = all.filter { !$0.key.hasPrefix(prefix) } }
      let error = #expect(throws: (any Error).self) { try DiffusionModel.load(from: url) }
      #expect("\(error as Any)".contains(words), "\(error as Any)")
    }
    // Without an encoder for the conditioning, the first stage's own, which may have no last convolution.
    try Self.write(to: url) { all in
      all = Dictionary(all.map { ($0.key.replacing("conditioner.embedders.3.encoder.", with: "first_stage_model."), $0.value) }) { $1 }
    }
    #expect(try DiffusionModel.load(from: url).warnings.isEmpty)
  }
}
