import Foundation
import LatentDiffusionFiles
import LatentDiffusionWeights
import Pipeline
import TextEncoder

extension DiffusionModel {
  /// Stands for the contents of components' files, for an `EncodingCache` and for runs that go on.
  ///
  /// - Parameter components: by the names of their folders; those that the model lacks are left out.
  /// - Throws: `FileReadError`.
  public func content(of components: [String]) throws(FileReadError) -> ContentHash { try source.files.content(of: components) }
}

extension ModelFiles {
  /// Stands for the contents of components' files. It takes milliseconds, since it looks at samples of large ones.
  func content(of components: [String]) throws(FileReadError) -> ContentHash {
    var hash = ContentHash()
    for component in components where self.components.contains(component) {
      hash.add(component)
      hash.add(try ContentHash(sampling: storage(of: component)))
    }
    return hash
  }
}

extension AdaptableFiles {
  /// Stands for all files that a model is made of, and for how they are taken.
  func content(
    of components: [String], adapters: [AdapterUse], embeddings: [TextualInversion]
  ) throws(FileReadError) -> ContentHash {
    var hash = try files.content(of: components)
    for (component, form) in forms.sorted(by: { $0.key < $1.key }) { hash.add("\(component) \(form?.rawValue ?? "as stored")") }
    for use in adapters {
      hash.add(try ContentHash(sampling: [use.adapter.url]))
      hash.add("\(use.weight)")
    }
    for embedding in embeddings {
      hash.add(embedding.name)
      for vectors in embedding.vectors { hash.add(vectors) }
    }
    return hash
  }
}
