import Foundation
import ImageFiles
import LatentDiffusionComponents
import LatentDiffusionImageEncoder
import LatentDiffusionTestSupport
import LatentDiffusionWeights
import Tensor
import Testing

/// The image tower layer by layer, and what prepares pictures for it, against transformers.
@Suite struct CLIPVisionTests {
  static let model = ReferenceModel("image-prompts")
  static let tolerance: Float = 1e-4

  struct Nothing: Decodable {}

  static func tower(_ source: any WeightSource) throws -> (CLIPVisionModelWithProjection, LoadReport) {
    let json = try Data(contentsOf: model.folder.appending(path: "image_encoder/config.json"))
    return try LoadReport.load(from: source, in: ExecutionContext()) { try CLIPVisionModelWithProjection(configuration: json, weights: $0) }
  }

  @Test(.compares("CLIPVisionModelWithProjection, every layer", in: .architectures, with: "transformers")) func equalsTransformers() throws
  {
    let tensors = try Self.model.pass("image", Nothing.self).tensors
    let (tower, report) = try Self.tower(ModelFiles(Self.model.folder.appending(path: "image_encoder")).weights(of: "image_encoder"))
    #expect(report.unused == [])
    let comparison = ModuleComparison(tensors, tolerance: Self.tolerance)
    var context = ExecutionContext()
    context.observer = { comparison.observe($0, $1) }
    let output = try tower(try #require(tensors["input"]).channelsLast(), in: context)
    #expect(comparison.missed == [], "\(comparison.count) were compared")
    let penultimate = expectClose(output.penultimate, try #require(tensors["output.penultimate"]), tolerance: Self.tolerance, "penultimate")
    let embeds = expectClose(output.imageEmbeds, try #require(tensors["output.image_embeds"]), tolerance: Self.tolerance, "image_embeds")
    print("image tower: \(comparison.largest), penultimate \(penultimate.error), image_embeds \(embeds.error)")
    #expect(throws: ComponentError.self) { try tower(Tensor(shape: [1, 16, 20, 3]), in: context) }
  }

  /// Under the names of either version, with the table of positions that old files have.
  @Test func oldAndNewKeys() throws {
    let file = try SafetensorsFile(Self.model.folder.appending(path: "image_encoder/model.safetensors"))
    let folder = try TemporaryFolder()
    let json = try Data(contentsOf: Self.model.folder.appending(path: "image_encoder/config.json"))
    try folder.write("image_encoder/config.json", json)
    var data = Data(), entries: [String] = []
    for (name, tensor) in file.tensors {
      let new = name.replacing("vision_model.", with: ""), end = data.count + tensor.data.count
      entries.append("\"\(new)\":{\"dtype\":\"F32\",\"shape\":\(tensor.shape),\"data_offsets\":[\(data.count),\(end)]}")
      data += tensor.data
    }
    entries.append("\"embeddings.position_ids\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[\(data.count),\(data.count + 8)]}")
    try folder.write("image_encoder/model.safetensors", rawSafetensors("{\(entries.joined(separator: ","))}", data: data + Data(count: 8)))
    let (_, report) = try Self.tower(ModelFiles(folder.url.appending(path: "image_encoder")).weights(of: "image_encoder"))
    #expect(report.unused == [])
  }

  struct Processing: Decodable {
    let name: String
    let picture: String
    let config: JSONValue?
  }

  private static func configurations() throws -> [(Processing, json: Data?)] {
    let data = try Data(contentsOf: model.folder.appending(path: "cases.json"))
    struct File: Decodable { let processing: [Processing] }
    let cases = try JSONDecoder().decode(File.self, from: data).processing
    let raw = try #require(JSONSerialization.jsonObject(with: data) as? [String: Any])["processing"] as? [[String: Any]]
    return try zip(cases, try #require(raw)).map { reference, raw in
      (reference, try (raw["config"] as? [String: Any]).map { try JSONSerialization.data(withJSONObject: $0) })
    }
  }

  /// The same bits: bytes after resizing, and numbers after normalising.
  @Test(.compares("Pictures prepared for an image encoder", in: .files, with: "transformers", "pillow", unit: .equality))
  func preparesAsTransformersDoes() throws {
    let expected = try readTensors(Self.model.folder.appending(path: "reference/processing.safetensors"))
    let cases = try Self.configurations()
    #expect(cases.count == expected.count)
    for (reference, json) in cases {
      let picture = try Picture(contentsOf: fixtures.appending(path: "models/inputs/\(reference.picture)")).tensor()
      var found = try CLIPImageProcessor(json: json)(picture)
      if json == nil {
        #expect(found.shape == [1, 224, 224, 3])
        // Of a large picture the fixture has a part.
        let rows = (96..<128).map { found.reshaped([224, 224, 3]).rows($0..<$0 + 1).reshaped([224, 3]).rows(96..<128) }
        found = Tensor.concatenated(rows, axis: 0).reshaped([1, 32, 32, 3])
      }
      let wanted = try #require(expected[reference.name]).channelsLast()
      #expect(found.shape == wanted.shape, "\(reference.name)")
      expectSame(found.elements, wanted.elements, reference.name)
    }
  }

  @Test func refusesWhatItCannotDo() throws {
    for json in [
      #"{"size":{"longest_edge":3}}"#, #"{"size":0}"#, #"{"size":{"shortest_edge":9999999}}"#, #"{"crop_size":{"height":3}}"#,
      #"{"resample":0}"#,
      #"{"image_std":[1,0,1]}"#, #"{"image_mean":[1]}"#, #"{"do_pad":true}"#, #"{"size":"x"}"#, #"{"rescale_factor":1e999}"#, "[]",
    ] {
      #expect(throws: ConfigurationError.self, "\(json)") { try CLIPImageProcessor(json: Data(json.utf8)) }
    }
    let processor = try CLIPImageProcessor()
    for shape: Shape in [[1, 4, 4, 1], [2, 4, 4, 3], [1, 0, 4, 3], [4]] {
      #expect(throws: ComponentError.self) { try processor(Tensor(shape: shape)) }
    }
    // A line of pixels: of millions that are cut off, none is computed.
    #expect(try processor(Tensor(repeating: 1, shape: [1, 1, 16384, 3])).shape == [1, 224, 224, 3])
    #expect(throws: ComponentError.self) { try processor(Tensor(shape: [1, 1, 100_000, 3])) }
    for json in [
      #"{"image_size":0}"#, #"{"patch_size":0}"#, #"{"patch_size":500}"#, #"{"patch_size":33}"#,
      #"{"hidden_size":10,"num_attention_heads":3}"#,
      #"{"hidden_act":"relu"}"#, #"{"num_channels":1}"#, #"{"num_hidden_layers":-1}"#, #"{"projection_dim":0}"#,
    ] {
      #expect(throws: ConfigurationError.self, "\(json)") { try CLIPVisionConfiguration(json: Data(json.utf8)) }
    }
  }
}
