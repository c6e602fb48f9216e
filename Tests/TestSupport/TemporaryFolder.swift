import Foundation

/// A folder that goes away with its test.
package final class TemporaryFolder {
  package let url = FileManager.default.temporaryDirectory.appending(path: "weights-" + UUID().uuidString, directoryHint: .isDirectory)
  package init() throws { try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true) }
  deinit { try? FileManager.default.removeItem(at: url) }

  /// Writes a file, with the folders it lies in.
  @discardableResult package func write(_ name: String, _ data: Data) throws -> URL {
    let file = url.appending(path: name)
    try FileManager.default.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
    try data.write(to: file)
    return file
  }

  @discardableResult package func write(_ name: String, _ text: String) throws -> URL { try write(name, Data(text.utf8)) }
}

/// A safetensors file of any header and data, however wrong.
package func rawSafetensors(_ header: String, data: Data, length: UInt64? = nil) -> Data {
  let bytes = Data(header.utf8)
  let length = length ?? UInt64(bytes.count)
  return Data((0..<8).map { UInt8(truncatingIfNeeded: length >> (8 * $0)) }) + bytes + data
}
