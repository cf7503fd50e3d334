"""Names of options that people bring from other tools, and ours.

Sources: TrainingArguments and generate() of Hugging Face's transformers, the arguments of LLaMA-Factory, ms-swift,
PaddleNLP's scripts, axolotl, THUDM/GLM, fairseq, UniLM's s2s-ft, and VLM's train.py and evaluate_vlm.py.
"""

# Our option, or several that stand for it, and its names elsewhere. Of two with a bar between them the first is meant
# that the program has.
BY_OPTION = {
    "dev_file": (
        "validation_file valid_file val_file eval_file dev_path val_dataset eval_dataset "
        "eval_dataset_path valid_data custom_val_dataset_path val_data val_path valid_path valid_subset "
        "eval_data validation_data dev_data_path test_during_training_file"
    ),
    "train_file": (
        "train_path train_data dataset dataset_dir dataset_name_or_path data_path data_dir train_dataset "
        "custom_train_dataset_path datasets data data_file train_data_file train_subset "
        "training_file"
    ),
    "train_file | test_file": "dataset_path",
    "test_file": (
        "input_file predict_file source_file infer_dataset test_data test_dataset test_path gen_subset "
        "eval_input input input_path predict_data prediction_file"
    ),
    "output_file": (
        "out_file output_path result_path output_data_file output_filename prediction_output pred_file save_file"
    ),
    "output_dir": (
        "save_dir save_path save export_dir results_dir output save_folder checkpoint_dir default_root_dir"
    ),
    "data_cache_dir": (
        "cache_dir dataset_prepared_path cached_train_features_file lmdb_cache preprocessed_path tokenized_path"
    ),
    "model_name_or_path": (
        "model model_path model_id model_type checkpoint model_checkpoint load_pretrained model_id_or_path base_model "
        "base_model_name_or_path pretrained_model_name_or_path pretrained_model init_checkpoint "
        "init_from_ckpt ckpt ckpt_path ckpt_dir path bert_model model_recover_path model_dir "
        "finetune_from_model config_name model_config load_args arch"
    ),
    "resume_from_checkpoint": (
        "restore_file load auto_resume_from_checkpoints resume_path continue_from load_checkpoint recover"
    ),
    "tokenizer_name_or_path": (
        "tokenizer tokenizer_name tokenizer_path tokenizer_model_type vocab_file sentencepiece_model "
        "spm_model tokenizer_model vocab"
    ),
    "src_length": (
        "max_source_length max_src_length max_src_len source_max_length src_seq_length "
        "max_source_seq_length max_input_length input_max_length max_prompt_length max_input_len "
        "source_seq_length"
    ),
    "src_length and --tgt_length": (
        "max_seq_len max_length max_len seq_length model_max_length cutoff_len "
        "sequence_len seq_len max_model_len max_sequence_length max_total_length block_size "
        "context_length"
    ),
    "tgt_length": (
        "max_target_length max_tgt_length max_tgt_len val_max_target_length generation_max_length "
        "out_seq_length max_dec_len max_new_tokens max_tgt_tokens max_len_b tgt_seq_length "
        "max_target_seq_length max_output_length max_tokens_to_sample max_generate_length max_decode_len "
        "decode_max_len max_answer_length val_max_length"
    ),
    "min_tgt_length": ("min_length min_new_tokens min_len min_dec_len"),
    "source_column": (
        "text_column input_column prompt_column context_column passage_column article_column src_column"
    ),
    "source_column, --answer_column and --target_column": ("columns question_column"),
    "target_column": (
        "summary_column response_column label_column output_column completion_column tgt_column "
        "reference_column target_field"
    ),
    "template": ("source_prefix prompt_template prompt instruction text_template"),
    "task_name": ("dataset_name task"),
    "learning_rate": ("lr base_lr peak_lr learning_rate_max lr_max max_lr"),
    "num_train_epochs": (
        "epochs num_epochs max_epoch max_epochs epoch num_training_epochs n_epochs num_epoch "
        "train_epochs max_train_epochs"
    ),
    "max_steps": (
        "max_update total_num_update train_iters num_training_steps max_train_steps max_iters num_steps "
        "train_steps lr_decay_iters max_train_iters num_train_steps"
    ),
    "per_device_train_batch_size": (
        "batch_size train_batch_size micro_batch_size per_gpu_train_batch_size bs max_sentences "
        "per_device_batch_size train_micro_batch_size_per_gpu per_gpu_batch_size "
        "device_train_microbatch_size"
    ),
    "per_device_eval_batch_size": (
        "eval_batch_size per_gpu_eval_batch_size infer_batch_size predict_batch_size test_batch_size "
        "decode_batch_size eval_bs max_batch_size valid_batch_size"
    ),
    "gradient_accumulation_steps": (
        "gradient_accumulation accumulate_grad_batches grad_accum_steps grad_accumulation "
        "accumulation_steps accum_steps gradient_accumulation_step"
    ),
    "lr_scheduler_type": (
        "lr_scheduler scheduler_type lr_decay_style lr_decay_strategy scheduler scheduler_name lr_schedule"
    ),
    "warmup_ratio": ("warmup warmup_proportion warmup_prop warm_up_ratio"),
    "warmup_steps": ("warmup_updates warmup_iters num_warmup_steps warm_up warmup_step lr_warmup_steps"),
    "label_smoothing": ("label_smoothing_factor"),
    "max_grad_norm": (
        "clip_grad clip_norm gradient_clip_val gradient_clipping grad_clip gradient_clip max_gradient_norm max_norm"
    ),
    "adam_beta1 and --adam_beta2": ("adam_betas"),
    "adam_epsilon": ("adam_eps"),
    "recompute": (
        "gradient_checkpointing checkpoint_activations use_recompute activation_checkpointing "
        "grad_checkpointing checkpoint_layers"
    ),
    "fp16 or --bf16": ("amp use_amp mixed_precision"),
    "evaluation_strategy": ("eval_strategy evals_per_epoch"),
    "eval_steps": ("eval_interval validate_interval eval_every eval_iters eval_frequency valid_steps"),
    "save_steps": ("save_interval save_interval_updates save_every checkpoint_interval save_freq saving_steps"),
    "logging_steps": ("log_interval log_every log_steps print_every log_freq print_steps log_interval_steps"),
    "save_total_limit": (
        "keep_last_epochs keep_interval_updates keep_checkpoint_max keep_best_checkpoints max_checkpoints save_limit"
    ),
    "metric_for_best_model": ("best_checkpoint_metric metric monitor best_metric"),
    "greater_is_better": ("maximize_best_checkpoint_metric"),
    "early_stopping_patience": ("patience early_stop early_stop_patience patience_epochs early_stopping_rounds"),
    "max_train_samples": (
        "max_samples max_eval_samples train_dataset_sample train_samples num_train_samples max_train_examples"
    ),
    "max_predict_samples": ("max_test_samples eval_limit max_test_examples num_samples limit"),
    "logging_dir": ("tensorboard_logdir logdir log_dir tensorboard_dir tb_dir"),
    "report_to wandb": ("wandb_project use_wandb wandb wandb_name"),
    "group_by_length": ("group_by_len"),
    "lora_rank": ("lora_r lora_dim"),
    "lora_targets": (
        "lora_target lora_target_modules target_modules additional_target lora_target_linear lora_modules_to_train"
    ),
    "freeze": (
        "freeze_layers freeze_trainable_layers freeze_parameters freeze_encoder freeze_embeddings "
        "fix_word_embedding num_layer_trainable name_module_trainable trainable_parameters "
        "unfrozen_parameters freeze_embeds"
    ),
    "num_prefix_tokens": ("pre_seq_len num_virtual_tokens"),
    "layerwise_lr_decay": ("layer_decay"),
    "tensor_parallel_degree": (
        "tensor_model_parallel_size model_parallel_size tp tensor_parallel_size tensor_parallel mp_degree mp_size"
    ),
    "dataloader_num_workers": ("num_workers preprocessing_num_workers"),
    "seed": ("random_seed"),
    "device cpu": ("no_cuda use_cpu cpu"),
    "device gpu": ("gpu use_gpu gpus n_gpu cuda"),
    "lora or --prefix_tuning": (
        "finetuning_type train_type finetune_type sft_type tuner_type peft_type tuning_type adapter_type"
    ),
    "lora": ("use_lora use_peft peft"),
    "select_topk False": ("do_sample sampling"),
    "select_topk True": ("no_sample"),
    "select_topk": ("decode_strategy decoding_strategy"),
    "top_k": ("topk sampling_topk"),
    "top_p": ("topp sampling_topp"),
    "num_beams": (
        "beam beam_size beams generation_num_beams beam_width beam_num eval_num_beams eval_beams n_beams beam_search"
    ),
    "length_penalty": ("lenpen len_penalty length_pen"),
    "num_return_sequences": ("nbest num_samples_per_prompt num_generations n_best best_of num_return"),
    "no_repeat_ngram_size": ("no_repeat_ngram ngram_size forbid_duplicate_ngrams block_ngram_repeat"),
    "repetition_penalty": ("presence_penalty frequency_penalty repeat_penalty rep_penalty"),
    "decode_dtype": ("dtype torch_dtype precision"),
    "port": ("server_port"),
    "host": ("server_name"),
    "serve": ("api"),
    "adapters": (
        "adapter_name_or_path adapter lora_path lora_weights lora_modules lora_checkpoint prefix_path "
        "ptuning_checkpoint peft_model peft_model_id lora_model_dir"
    ),
    "weight_decay": ("wd l2"),
    "attention_dropout_prob": ("attention_dropout"),
    "output_dropout_prob": ("dropout hidden_dropout hidden_dropout_prob activation_dropout"),
    "embedding_dropout_prob": ("embedding_dropout emb_dropout"),
    "save_strategy": ("saves_per_epoch"),
    "load_best_model_at_end": ("load_best_model load_best"),
    "report_to": ("logger log_with tracker"),
    "run_name": ("experiment_name exp_name wandb_run_id experiment"),
    "packing": ("sample_packing neat_packing zero_padding intokens packed eval_packing"),
    "prefix_tuning": ("continuous_prompt ptuning p_tuning"),
    "scale_loss": ("loss_scale fp16_init_scale initial_loss_scale initial_scale"),
    "sharding": ("sharding_stage zero zero_optimization"),
    "max_tokens": ("max_tokens_per_batch"),
    "fp16": ("half use_fp16 float16"),
    "bf16": ("bfloat16 use_bf16"),
    "amp_master_grad": ("master_grad master_weights"),
    "no_repeat_ignore": ("forbid_ignore_word"),
    "token_scores": ("output_scores need_score_traces return_logprobs logprobs print_alignment"),
    "generation_seed": ("sampling_seed"),
    "show": ("print_samples num_examples_to_print"),
    "metrics_file": ("metrics_path eval_output_file result_file scores_file"),
    "do_predict": ("do_test do_infer"),
    "do_eval": ("evaluate eval_valid do_valid"),
    "do_train": ("train finetune"),
    "overwrite_output_dir": ("overwrite overwrite_output_directory"),
    "api_key_file": ("api_token"),
    "max_bad_records": ("skip_bad_lines"),
    "disable_tqdm": ("no_progress_bar quiet"),
    "max_pred": ("num_max_mask_token max_predictions_per_seq"),
    "weights": ("interleave_probs sampling_ratios data_weights"),
    "multi_turn": ("chat_template mask_history"),
    "keep_columns": ("id_column"),
    "device": ("device_map"),
}
# What there is in place of an option, and names of options that there is nothing else for.
BY_REASON = {
    "evaluation always generates; leave it out": ("predict_with_generate eval_with_do_generation"),
    "prediction always generates; leave it out": ("do_generate"),
    "give the file first, without a name: finetune_generation.py FILE": ("config config_file config_path"),
    "training is always supervised; leave it out": (
        "stage reward_model ref_model pref_beta dpo_beta rlhf_type reward_model_type kl_coef ppo_epochs"
    ),
    "to split optimizer and gradients over GPUs there is --sharding stage1 or stage2": (
        "deepspeed fsdp zero_stage deepspeed_config deepspeed_stage fsdp_config zero_quantized_weights "
        "fully_sharded use_fsdp"
    ),
    "weights are not quantized; --lora needs little memory": (
        "quantization_bit load_in_8bit load_in_4bit quantization_method quant_bits quant_method "
        "quant_type weight_quantize_algo bnb_4bit_quant_type quantize int8 double_quantization "
        "bnb_4bit_compute_dtype use_qlora qlora cachekv_int8_type"
    ),
    "no code of a model's folder is ever run; leave it out": ("trust_remote_code"),
    "the fastest attention there is for the device is taken; leave it out": (
        "flash_attn use_flash_attention use_flash_attn attn_implementation flash_attention "
        "xformers_attention shift_attn attn_impl sdp_attention use_memory_efficient_attention"
    ),
    "float32 is what is computed without --fp16 and --bf16; leave it out": ("fp32"),
    "there is one log; errors alone are shown by 2> in the shell": ("log_level"),
    "python -m paddle.distributed.launch says which process it is; leave it out": ("local_rank"),
    "nothing is sent anywhere; upload the folder with huggingface-cli": (
        "push_to_hub hub_model_id hub_token hub_strategy hub_private_repo use_auth_token token hf_token hub_model_name"
    ),
    "the cache is found by content and never out of date; leave it out": ("overwrite_cache"),
    "records are read from disk as they are needed; leave it out": ("streaming"),
    "padding is never in the loss; leave it out": ("ignore_pad_token_for_loss"),
    "batches are padded to their own longest; leave it out": ("pad_to_max_length"),
    "only the columns of the template are read; leave it out": ("remove_unused_columns"),
    "training.html shows the loss while the run goes on; leave it out": ("plot_loss"),
    "the loss is cross entropy, with --label_smoothing": ("criterion"),
    "AdamW is what is trained with; leave it out": (
        "optimizer momentum optimizer_type optim_args adafactor use_adafactor sgd_momentum"
    ),
    "a model of this kind has no system text; write it into --template": ("system"),
    'the server streams (predict.py --serve, "stream": true)': ("stream"),
    "split the file beforehand, and give the parts as --train_file and --dev_file": (
        "val_size split_dataset_ratio val_set_size val_ratio dataset_test_ratio "
        "validation_split_percentage valid_ratio split_ratio eval_ratio test_size"
    ),
    "a checkpoint holds all that is needed to go on; leave it out": ("save_only_model save_weights_only"),
    "the last, smaller batch is trained on too; leave it out": ("dataloader_drop_last drop_last"),
    "python -m paddle.distributed.launch says how many processes there are, and Paddle how they talk; leave it out": (
        "ddp_find_unused_parameters find_unused_parameters ddp_backend ddp_timeout distributed_backend "
        "distributed_world_size nproc_per_node num_gpus nnodes master_port server_ip"
    ),
    "what each schedule takes has a flag of its own: --warmup_steps, --power, --lr_decay_ratio": (
        "lr_scheduler_kwargs scheduler_params"
    ),
    "products are computed in float32, or with --bf16 or --fp16": (
        "tf32 allow_tf32 bf16_full_eval fp16_full_eval memory_efficient_fp16 pure_bf16"
    ),
    "a batch that does not fit is an error that says what to set; python -m glm memory says what fits": (
        "auto_find_batch_size auto_micro_batch_size"
    ),
    "not here; what there is to train few weights is --lora, --prefix_tuning, --adapter_bottleneck and --freeze": (
        "neftune_noise_alpha use_dora use_rslora use_galore use_badam loraplus_lr_ratio pissa_init "
        "use_pissa use_lora_plus lora_plus_scale use_llama_pro"
    ),
    "Paddle runs the model as it is; leave it out": (
        "torch_compile compile to_static use_fused_rms_norm fuse_attention_qkv fuse_attention_ffn "
        "inference_model use_inductor enable_liger_kernel use_unsloth"
    ),
    "a data set is given as files: --train_file, --dev_file, --test_file, or --task_name": (
        "dataset_config_name dataset_config train_split_name test_split split subset validation_split "
        "dataset_split eval_split"
    ),
    "beams are those of one group; texts that differ are drawn: --select_topk False with --num_return_sequences": (
        "num_beam_groups diversity_penalty diverse_beam_groups diverse_beam_strength diversity_rate"
    ),
    "drawing has --temperature, --top_k and --top_p": (
        "typical_p penalty_alpha min_p top_a epsilon_cutoff eta_cutoff tfs mirostat"
    ),
    "not here: which texts are allowed is said as a whole, --allowed_outputs_file": (
        "bad_words_ids force_words_ids suppress_tokens not_predict_token constraints logit_bias sequence_bias"
    ),
    "the tokenizer says it itself; leave it out": (
        "forced_bos_token_id forced_eos_token_id eos_token_id pad_token_id bos_token_id "
        "decoder_start_token_id use_fast_tokenizer use_fast do_lower_case special_tokens "
        "add_special_tokens add_bos_token resize_vocab tokenizer_type pool_token bpe remove_bpe "
        "tokenizer_class new_special_tokens split_special_tokens"
    ),
    "a cache of keys and values is always used; leave it out": ("use_cache incremental fast_decode use_past"),
    "the folder or name says which; another revision is another folder": (
        "model_revision revision model_variant hub_revision"
    ),
    "checkpoints are safetensors; python -m glm checkpoint export writes other formats": (
        "save_safetensors safe_serialization save_on_each_node"
    ),
    "evaluation holds what it must, and no more; leave it out": (
        "eval_accumulation_steps include_inputs_for_metrics eval_on_start num_sanity_val_steps eval_do_concat_batches"
    ),
    "prediction and server run the model here; to take it elsewhere there is python -m glm checkpoint export": (
        "infer_backend vllm use_vllm engine inference_engine"
    ),
    "positions are those of the model; python -m glm checkpoint import --positions makes more": (
        "rope_scaling rope_theta extend_positions"
    ),
    "the loss is on the target alone; leave it out": (
        "train_on_prompt train_on_inputs mask_prompt completion_only_loss assistant_only_loss loss_on_prompt"
    ),
    "several files are mixed by their --weights; leave it out": (
        "mix_strategy interleave_strategy streaming_strategy"
    ),
    "a run goes on with its adapter by --resume_from_checkpoint; a new one starts anew": (
        "create_new_adapter resume_lora_training"
    ),
    "a source that is too long is cut around its answer, which is said; --allow_cut_targets is for targets": (
        "skip_invalid_size_inputs_valid_test truncation_strategy truncation truncate truncate_source "
        "truncation_side padding_side doc_stride"
    ),
    "python -m glm merge makes one folder of model and adapter": (
        "merge_lora merge_and_unload export_model merge_adapter merge_lora_and_save"
    ),
    "records are prepared once and kept (--data_cache_dir); leave it out": (
        "lazy_tokenize lazy lazy_preprocess map_num_proc tokenize_num_workers buffer_size "
        "prefetch_factor preloading cached_features"
    ),
    "texts end by themselves or at --tgt_length; the server has `stop`": (
        "stopping_criteria stop stop_words stop_token eos_string stop_sequences"
    ),
    "layers are not split over a pipeline; --tensor_parallel_degree splits them, --sharding the optimizer": (
        "pipeline_parallel_degree pipeline_model_parallel_size pp pp_degree sequence_parallel "
        "context_parallel_degree sep_parallel_degree virtual_pp_degree expert_parallel_degree"
    ),
    "whether a task chooses or generates is said by its --task_name": (
        "mode cloze_eval multi_token_eval block_lm task_type s2s generation_task wsc_negative"
    ),
    "the model's configuration has it: --model_name_or_path FILE.json": (
        "num_layers hidden_size num_attention_heads num_hidden_layers "
        "intermediate_size encoder_layers decoder_layers embed_dim share_all_embeddings n_layer n_head "
        "n_embd vocab_size"
    ),
    "not here; see --mask_prob, --max_pred and --target_mask_prob, and python -m glm pretrain --help": (
        "avg_block_length source_mask_prob keep_prob random_prob mask_way mlm_probability masked_lm_prob "
        "gap_sentence_prob"
    ),
    "leave out --do_eval and --evaluation_strategy": ("no_validation skip_eval disable_validation"),
    "of the tasks with several languages --train_langs and --eval_langs choose": (
        "source_lang target_lang src_lang tgt_lang forced_language"
    ),
    "a checkpoint is gone on with as it was; for new weights alone give it as --model_name_or_path": (
        "reset_optimizer reset_dataloader reset_lr_scheduler reset_meters ignore_data_skip "
        "load_optimizer finetune_weights_only no_load_optim no_load_rng no_save_optim"
    ),
    "python -m glm score scores a file, with --protocols all as other tools do": (
        "scoring sacrebleu eval_bleu eval_bleu_args rouge eval_metrics compute_metrics eval_bleu_detok"
    ),
    "not here: nothing is added to what the model says of unknown pieces": ("unkpen unk_penalty"),
    "the longest text is a number of tokens: --tgt_length": ("max_len_a"),
    "a text begins with --target_prefix in training, --prefix in prediction": (
        "prefix_size force_prefix decoder_prompt"
    ),
    "no code of others is ever run; leave it out": ("user_dir plugin plugin_path custom_module external_plugins"),
    "there is one log, and the run folder has metrics.jsonl": (
        "log_format verbose debug log_file logging_level print_stats log_on_each_node log_level_replica"
    ),
    "unknown names are always an error; leave it out": ("strict strict_mode ignore_mismatched_sizes"),
    "the model's folder says it itself; leave it out": (
        "is_llama_derived_model model_class architectures type_of_model is_chatglm"
    ),
    "batches are padded to their own longest; --pad_to_multiple_of widens them": (
        "pad_to_sequence_len pad_to_max padding max_padding_length"
    ),
    "the order of records follows from --seed; leave it out": (
        "shuffle shuffle_buffer_size data_seed train_dataloader_shuffle dataset_shuffle sortish_sampler"
    ),
    "columns are separated by what the file's first line shows; save it as UTF-8 CSV, TSV, JSON or parquet": (
        "delimiter separator sep encoding file_encoding"
    ),
    "what the model reads in place of a chat is --template": (
        "default_system history history_column system_prompt tools"
    ),
    "not here: texts begin where the geometry of the model says": ("pos_shift pos_shift_decode"),
}
OURS = {name: option for option, names in BY_OPTION.items() for name in names.split()}
NONE = {name: reason for reason, names in BY_REASON.items() for name in names.split()}
