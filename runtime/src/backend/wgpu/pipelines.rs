//! Compiled kernels, made when they are first used, kept for the life of the device and, where possible, on disk.

use super::shader::{Kernel, Key, Shape, kernel};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use wgpu::{
    BindGroupLayout, BindGroupLayoutDescriptor, BindGroupLayoutEntry, BindingType, BufferBindingType, BufferSize,
    ComputePipeline, ComputePipelineDescriptor, Device, Features, PipelineCache, PipelineCacheDescriptor,
    PipelineCompilationOptions, PipelineLayoutDescriptor, ShaderModuleDescriptor, ShaderSource, ShaderStages,
};

/// Bytes of one kernel's parameters; also the largest alignment that an interface may ask of them.
pub(super) const PARAMS_BYTES: u64 = 256;

/// A kernel that is ready.
#[derive(Clone)]
pub(super) struct Compiled {
    pub(super) pipeline: ComputePipeline,
    pub(super) layout: BindGroupLayout,
    /// Whether the arena is bound once more behind the operands.
    pub(super) halves: bool,
}

/// All kernels of a device.
pub(super) struct Pipelines {
    device: Device,
    shape: Shape,
    compiled: BTreeMap<Key, Compiled>,
    cache: Option<(PipelineCache, PathBuf)>,
    /// Kernels compiled since the cache was last written.
    fresh: usize,
}

impl Pipelines {
    pub(super) fn new(device: &Device, shape: Shape, cache: Option<&Path>) -> Self {
        let usable = device.features().contains(Features::PIPELINE_CACHE);
        let cache = cache.filter(|_| usable).and_then(|folder| {
            let name = wgpu::util::pipeline_cache_key(&device.adapter_info())?;
            let path = folder.join(name);
            let data = std::fs::read(&path).ok();
            let descriptor = PipelineCacheDescriptor { label: None, data: data.as_deref(), fallback: true };
            // SAFETY: the data, where there is any, was written by `save` below, from a cache of the device whose key
            // names the file; the interface checks its header and falls back to an empty cache when it does not fit.
            let cache = unsafe { device.create_pipeline_cache(&descriptor) };
            Some((cache, path))
        });
        Self { device: device.clone(), shape, compiled: BTreeMap::new(), cache, fresh: 0 }
    }

    /// The kernel for a key, compiled at its first use. `None` where there is no such kernel.
    pub(super) fn get(&mut self, key: Key) -> Option<Compiled> {
        if let Some(compiled) = self.compiled.get(&key) {
            return Some(compiled.clone());
        }
        let compiled = self.compile(&kernel(key, self.shape)?);
        self.fresh += 1;
        self.compiled.insert(key, compiled.clone());
        Some(compiled)
    }

    fn compile(&self, kernel: &Kernel) -> Compiled {
        let storage = |binding: usize, read_only: bool| BindGroupLayoutEntry {
            binding: binding as u32,
            visibility: ShaderStages::COMPUTE,
            ty: BindingType::Buffer {
                ty: BufferBindingType::Storage { read_only },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        };
        let mut entries = vec![BindGroupLayoutEntry {
            binding: 0,
            visibility: ShaderStages::COMPUTE,
            ty: BindingType::Buffer {
                ty: BufferBindingType::Uniform,
                has_dynamic_offset: true,
                min_binding_size: BufferSize::new(PARAMS_BYTES),
            },
            count: None,
        }];
        if kernel.weights {
            entries.push(storage(1, true));
        }
        for _ in 0..kernel.operands {
            // Operands may be views of one buffer; an interface that tracks use by buffer allows that for one kind of
            // use only.
            entries.push(storage(entries.len(), false));
        }
        if kernel.halves {
            entries.push(storage(entries.len(), true));
        }
        let device = &self.device;
        let layout = device.create_bind_group_layout(&BindGroupLayoutDescriptor { label: None, entries: &entries });
        let pipeline_layout = device.create_pipeline_layout(&PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let source = ShaderSource::Wgsl(kernel.source.as_str().into());
        let module = device.create_shader_module(ShaderModuleDescriptor { label: None, source });
        let pipeline = device.create_compute_pipeline(&ComputePipelineDescriptor {
            label: None,
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: self.cache.as_ref().map(|(cache, _)| cache),
        });
        Compiled { pipeline, layout, halves: kernel.halves }
    }

    /// Keeps what was compiled on disk. Failing to is no error: it costs time at the next start.
    fn save(&self) {
        let Some((cache, path)) = self.cache.as_ref().filter(|_| self.fresh > 0) else { return };
        let Some(data) = cache.get_data() else { return };
        let written = path.with_extension(format!("{}.part", std::process::id()));
        let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        if folder.and_then(|()| std::fs::write(&written, data)).is_ok() {
            let _ = std::fs::rename(&written, path);
        }
    }
}

impl Drop for Pipelines {
    fn drop(&mut self) {
        self.save();
    }
}
