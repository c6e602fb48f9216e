import Foundation
import LatentDiffusion

/// Reads `[N, C, h, w]` from a safetensors file, or `[N, C, F, h, w]` of clips.
/// - Parameter names: the tensor's name, the preferred one first. The only tensor of a file may have any name.
/// - Returns: `[N, h, w, C]` or `[N, F, h, w, C]`.
func readLatents(_ path: String, names: [String], ofClips isOfClips: Bool? = false) throws -> Tensor {
  let file = try SafetensorsFile(URL(filePath: path))
  guard let name = names.first(where: file.names.contains) ?? (file.names.count == 1 ? file.names.first : nil) else {
    throw Failure("\(path) holds no tensor named \(names.joined(separator: " or ")); name it so, or let it be the only one.")
  }
  let shapes = [(false, 4, "[N, 4, h, w]"), (true, 5, "[N, 4, frames, h, w]")].filter { $0.0 == isOfClips ?? $0.0 }
  guard let shape = file.tensors[name]?.shape, shapes.contains(where: { $0.1 == shape.rank }), shape.count > 0,
    shape.count <= GenerationRequest.maximumPixels
  else {
    throw Failure("\(name) in \(path) must have the shape \(shapes.map(\.2).joined(separator: " or ")).")
  }
  let tensor = try file.tensor(name, shape: shape).decoded()
  guard tensor.isFinite else { throw Failure("\(name) in \(path) has elements that are infinite or not numbers.") }
  return tensor.permuted([0] + (2..<shape.rank) + [1])
}

func writeTensor(_ name: String, _ tensor: Tensor, to path: String) throws {
  try SafetensorsWriter.write([name: tensor], to: URL(filePath: path))
}

/// The shape `[N, h, w, C]` or `[N, F, h, w, C]` as files have it.
func channelsFirst(_ shape: Shape) -> Shape { Shape([shape[0], shape.columns] + shape.dimensions.dropFirst().dropLast()) }

/// A tensor of such a shape as files have it.
func withChannelsFirst(_ tensor: Tensor) -> Tensor { tensor.permuted([0, tensor.shape.rank - 1] + (1..<tensor.shape.rank - 1)) }
