import Foundation

/// The small emoji model that comes with this package: 64×64 pictures from captions such as "red apple".
public enum EmojiModel {
  /// The model's folder, in diffusers' layout (`model_index.json`, `tokenizer`, `text_encoder`, `unet`, `vae`, `scheduler`).
  ///
  /// - Throws: `EmojiModelError.missingResources` if the module's resources are not next to the program.
  public static func folder() throws(EmojiModelError) -> URL {
    guard let folder = resourceFolder("emoji", module: "EmojiModel") else { throw .missingResources }
    return folder
  }
}

/// Why the embedded model is not available.
public enum EmojiModelError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The model's folder is not next to the program.
  case missingResources

  public var description: String {
    """
    The embedded model's folder LatentDiffusion_EmojiModel.resources is not beside the program; copy it from the build folder to \
    where the program lies.
    """
  }
}

/// A resource folder of a module of this package: next to the program, in its bundle, or else in the sources.
///
/// (The accessor that SwiftPM generates ends the process if there is no bundle.)
private func resourceFolder(_ name: String, module: String, sources: String = #filePath) -> URL? {
  let program = Bundle.main.executableURL?.resolvingSymlinksInPath().deletingLastPathComponent()
  var places = [Bundle.main.resourceURL, Bundle.main.bundleURL, program].compactMap { $0 }
  places += (Bundle.allBundles + Bundle.allFrameworks).flatMap { [$0.resourceURL, $0.bundleURL.deletingLastPathComponent()] }.compactMap {
    $0
  }
  let bundle = "LatentDiffusion_\(module)"
  let folders =
    places.flatMap { place in
      ["\(bundle).resources", "\(bundle).bundle", "\(bundle).bundle/Contents/Resources"].map { place.appending(path: $0) }
    } + [URL(filePath: sources).deletingLastPathComponent().appending(path: "Resources")]
  return folders.map { $0.appending(path: name) }.first { FileManager.default.fileExists(atPath: $0.path) }
}
