import Tensor

/// The modules of a model by all names that adapters have for them. Names whose dots are written as underscores are looked up, never guessed.
package struct AdapterTargets: Sendable {
  /// A module of a component: what stands before `.weight` and `.bias`.
  struct Module: Sendable, Hashable {
    let component: String
    let name: String
    var full: String { component + "." + name }
  }

  /// A component of a model.
  package struct Component: Sendable {
    let name: String
    let host: String?
    let shapes: [String: Shape]
    let otherNames: [String: String]

    /// - Parameters:
    ///   - name: `unet`, `text_encoder`, `text_encoder_2`.
    ///   - host: the component that it is added to, whose name adapters call it by.
    ///   - shapes: of its parameters, by the names that layers ask for.
    ///   - otherNames: of its modules, such as those of the original code, with the modules' names.
    package init(_ name: String, addedTo host: String? = nil, shapes: [String: Shape], otherNames: [String: String] = [:]) {
      (self.name, self.host, self.shapes, self.otherNames) = (name, host, shapes, otherNames)
    }
  }

  private let components: [Component]
  /// For each component modules by name; nil for a name that several have.
  private let modules: [String: [String: String?]]

  /// - Parameter components: of one model.
  package init(_ components: [Component]) {
    self.components = components
    modules = components.reduce(into: [:]) { $0[$1.name] = Self.index($1) }
  }

  private static func index(_ component: Component) -> [String: String?] {
    let modules = Set(component.shapes.keys.compactMap { name in name.lastIndex(of: ".").map { String(name[..<$0]) } })
    var index: [String: String?] = [:]
    func add(_ name: String, _ module: String) {
      for spelling in Set([name, name.replacing(".", with: "_")]) {
        index[spelling] = index[spelling, default: module] == module ? .some(module) : .some(nil)
      }
    }
    for module in modules {
      add(module, module)
      // transformers 4 has a tower within the model.
      if component.name.hasPrefix("text_encoder") { add("text_model." + module, module) }
    }
    for (name, module) in component.otherNames where modules.contains(module) { add(name, module) }
    return index
  }

  /// What names begin with, and the component that they belong to; nil: any that has such a module.
  private static let prefixes: [(String, component: String?)] = [
    ("lora_unet_", "unet"), ("lora_te1_", "text_encoder"), ("lora_te2_", "text_encoder_2"), ("lora_te_", "text_encoder"),
    ("lycoris_", nil), ("unet.", "unet"), ("text_encoder_2.", "text_encoder_2"), ("text_encoder.", "text_encoder"),
    ("model.diffusion_model.", "unet"), ("diffusion_model.", "unet"), ("", nil),
  ]

  /// The module that a file's name means; nil if there is none, or more than one.
  func module(_ name: String) -> Module? {
    let peft = "base_model.model."
    let name = name.hasPrefix(peft) ? String(name.dropFirst(peft.count)) : name
    guard let (prefix, component) = Self.prefixes.first(where: { name.hasPrefix($0.0) }) else { return nil }
    let rest = String(name.dropFirst(prefix.count))
    let found = components.filter { [nil, $0.name, $0.host].contains(component) }.compactMap { component in
      (modules[component.name]?[rest] ?? nil).map { (host: component.host, module: Module(component: component.name, name: $0)) }
    }
    // What is added takes the place of what its host has.
    let added = found.filter { $0.host != nil }, left = added.isEmpty ? found : added
    return left.count == 1 ? left[0].module : nil
  }

  /// The shape of a module's parameter: `weight` or `bias`.
  func shape(of parameter: String, in module: Module) -> Shape? {
    components.first { $0.name == module.component }?.shapes[module.name + "." + parameter]
  }

  /// Some modules, for messages.
  var examples: [String] {
    components.compactMap { component in
      component.shapes.keys.filter { $0.hasSuffix("_q.weight") || $0.hasSuffix("q_proj.weight") }.min().map { "\(component.name).\($0)" }
    }
  }
}
