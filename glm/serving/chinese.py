"""The API's messages in Chinese, by their English patterns; the first match counts, so special patterns come first.

`{}` stands for any text, `{*}` for a message of its own; `{0}`, `{1}`, … in the Chinese are these in their order.
"""

MESSAGES = {
    # -- requests
    "the body is no JSON ({})": "请求体不是 JSON（{0}）",
    "lists and objects {} deep; at most {} (max_request_depth)": (
        "列表和对象嵌套了 {0} 层，最多 {1} 层（max_request_depth）"
    ),
    "about {} values and names; at most {} (max_request_items); send them in several requests": (
        "约有 {0} 个值和字段名，最多 {1} 个（max_request_items）；请分几次发送"
    ),
    "texts of {} characters; at most {} (max_request_characters); send them in several requests": (
        "文本共 {0} 个字符，最多 {1} 个（max_request_characters）；请分几次发送"
    ),
    "the body has {} bytes; at most {} (max_request_bytes)": "请求体有 {0} 字节，最多 {1} 字节（max_request_bytes）",
    "the body has more than {} bytes (max_request_bytes)": "请求体超过 {0} 字节（max_request_bytes）",
    "the body did not come within {} s": "{0} 秒内没有收到完整的请求体",
    "too many large requests at once; try again later": "同时到达的大请求太多，请稍后再试",
    "too many texts are waiting; try again later": "排队的文本太多，请稍后再试",
    "not done within {} s; ask for fewer or shorter texts, or later": (
        "{0} 秒内没有完成；请减少文本数量或长度，或稍后再试"
    ),
    "decoding failed: {*}": "生成失败：{0}",
    "the model's output is not a number: its weights are damaged, or too large for their type": (
        "模型输出不是数值：权重损坏，或超出了数据类型的范围"
    ),
    "the server failed; its log says why": "服务器内部出错，原因见服务器日志",
    "the client closed the connection": "客户端已断开连接",
    "send the key as 'Authorization: Bearer KEY'": "请用请求头 'Authorization: Bearer 密钥' 发送密钥",
    "send JSON, with 'Content-Type: application/json'": "请发送 JSON，并加上请求头 'Content-Type: application/json'",
    "Host {}: is not this server's name; name it with --allowed_hosts": (
        "Host {0}：不是本服务器的名称；可用 --allowed_hosts 添加"
    ),
    "Origin {}: is another site; name its host with --allowed_hosts": (
        "Origin {0}：是另一个网站；可用 --allowed_hosts 添加它的主机名"
    ),
    "model {}: is not served; the model here is {}": "model {0}：没有这个模型；本服务器的模型是 {1}",
    "adapters change for who has the key only; start with --api_key_file": (
        "只有持密钥者可以增减适配器；请用 --api_key_file 启动服务器"
    ),
    "adapters: the model here takes none": "adapters：本服务器的模型不支持适配器",
    "name {}: is served already; DELETE it first, or choose another name": (
        "name {0}：已有这个任务；请先用 DELETE 移除，或换一个名称"
    ),
    "name {}: is not served; there are {}": "name {0}：没有这个任务；现有任务：{1}",
    "task {}: is not loaded; loaded are {}": "task {0}：没有载入；已载入：{1}",
    "task: was taken out of the server meanwhile": "task：该任务已从服务器移除",
    "{}: is not there; there are {}": "{0}：没有这个地址；可用的有 {1}",
    "{} {}: use another method, POST or GET": "{0} {1}：请换一种方法（POST 或 GET）",
    "{} texts at once: at most {} (per_device_eval_batch_size + max_waiting); send them in several requests": (
        "一次发送了 {0} 条文本，最多 {1} 条（per_device_eval_batch_size + max_waiting）；请分几次发送"
    ),
    # -- what fields may hold
    "give either records or texts": "records 和 texts 必须且只能给出一个",
    "give either records, or text and candidates": "请给出 records，或者 text 和 candidates",
    "text and candidates belong together": "text 和 candidates 必须同时给出",
    "give either records, or question and context": "请给出 records，或者 question 和 context",
    "question and context belong together": "question 和 context 必须同时给出",
    "has to be given": "必须给出",
    "no such field": "没有这个字段",
    "no such field; here it is {}": "没有这个字段；这里叫 {0}",
    "no such field; did you mean {}?": "没有这个字段；是不是指 {0}？",
    "a JSON object is expected": "应为 JSON 对象",
    "a list is expected": "应为列表",
    "a text is expected": "应为字符串",
    "a whole number is expected": "应为整数",
    "a number is expected": "应为数值",
    "a finite number is expected": "应为有限的数值",
    "true or false is expected": "应为 true 或 false",
    "must not be empty": "不能为空",
    "holds half of a surrogate pair; write it as UTF-8, or escape whole characters": (
        "含有不成对的代理字符；请用 UTF-8，或转义完整的字符"
    ),
    "use {} or more": "应不小于 {0}",
    "use {} or less": "应不大于 {0}",
    "use a number above {}": "应大于 {0}",
    "use a number below {}": "应小于 {0}",
    "{} or more are expected": "至少要有 {0} 个",
    "at most {} characters are expected": "最多 {0} 个字符",
    "at most {} are expected": "最多 {0} 个",
    "use one of {}": "可用的值：{0}",
    # -- OpenAI's fields
    "is not there; to discourage repeats there are repetition_penalty and no_repeat_ngram_size": (
        "不支持；抑制重复请用 repetition_penalty 和 no_repeat_ngram_size"
    ),
    "is not there; no token can be made likelier or banned by a request": (
        "不支持；请求不能提高或禁止某个 token 的概率"
    ),
    "is not there; the model writes texts and calls nothing": "不支持；模型只生成文本，不调用工具",
    "is not there; the model writes plain text": "不支持；模型只生成纯文本",
    "are not there; POST /v1/completions has them": "不支持；POST /v1/completions 有这一项",
    "is not there; nothing is stored": "不支持；服务器不保存任何内容",
    "stream_options: has no effect without stream true; leave it out": (
        "stream_options：只在 stream 为 true 时有效，请去掉"
    ),
    "max_tokens 0: writes nothing; use 1 or more, or echo true to have the prompt scored": (
        "max_tokens 0：不会生成文本；请用 1 以上的值，或用 echo true 给提示文本打分"
    ),
    "max_tokens 0: writes nothing; use 1 or more": "max_tokens 0：不会生成文本；请用 1 以上的值",
    "max_tokens: is another name of max_completion_tokens; leave one of them out": (
        "max_tokens：与 max_completion_tokens 是同一个选项，请只给一个"
    ),
    "best_of {}: use n ({}) or more": "best_of {0}：应不小于 n（{1}）",
    "best_of {}: has no effect beside num_beams {}; leave one of them out": (
        "best_of {0}：与 num_beams {1} 同时给出时无效，请去掉其中一个"
    ),
    "{}: come with whole texts only; leave stream out": "{0}：只随完整的文本返回，请去掉 stream",
    "suffix: {} writes behind its source only; leave it out": "suffix：{0} 只能在输入之后续写，请去掉",
    "suffix: has no effect beside a prompt with a blank, or of ids; leave it out": (
        "suffix：提示文本已有空白标记或由 token id 组成时无效，请去掉"
    ),
    "echo: a prompt with a blank has no log-probabilities; leave logprobs out": (
        "echo：带空白标记的提示文本没有对数概率，请去掉 logprobs"
    ),
    "prompt: {} tokens to be scored; the model has room for {}": (
        "prompt：要打分的有 {0} 个 token，模型最多容纳 {1} 个"
    ),
    "prompt: {} is no id of a text; send texts, or ids of the model's own tokenizer": (
        "prompt：{0} 不是文本的 token id；请发送文本，或本模型分词器的编号"
    ),
    "tokens: {} is no id of the model's tokenizer, which has {}": (
        "tokens：{0} 不是本模型分词器的 token id（共 {1} 个）"
    ),
    "prompt: holds more than one blank; POST /generate fills several": (
        "prompt：有多个空白标记；填多个空请用 POST /generate"
    ),
    "prompt: {} tokens do not fit into src_length {}, shorten the text: {}": (
        "prompt：{0} 个 token，超过 src_length {1}，请缩短文本：{2}"
    ),
    "prompt: {} blanks do not fit into src_length {}: {}": "prompt：{0} 个空白标记，超过 src_length {1}：{2}",
    "messages: {} of the roles {}; one of the role user is answered: the model was trained on single turns, so put "
    "all into one": "messages：收到 {0} 条，角色为 {1}；只回答一条 user 消息：模型按单轮训练，请把内容合并成一条",
    "messages: the user's content is empty; write what the model is to read": (
        "messages：user 消息为空；请写入要模型读的内容"
    ),
    "messages: the model's task writes no texts; POST records to /choose or /extract": (
        "messages：模型的任务不生成文本；请把记录 POST 到 /choose 或 /extract"
    ),
    "messages: the model's template reads more than one text ({}); POST them as a record to /generate": (
        "messages：模型的模板要读多个文本（{0}）；请作为一条记录 POST 到 /generate"
    ),
    "records: the model's task writes no texts; POST them to /choose or /extract": (
        "records：模型的任务不生成文本；请 POST 到 /choose 或 /extract"
    ),
    "records: the model's task does not choose; give a text and candidates": (
        "records：模型的任务不是选择题；请给出 text 和 candidates"
    ),
    "texts: {} has no blanks to fill; POST records, or a prompt to /v1/completions": (
        "texts：{0} 没有可填的空白；请发送 records，或把 prompt POST 到 /v1/completions"
    ),
    # -- options of decoding
    "{} {}: has no effect with temperature 0; raise it": "{0} {1}：temperature 为 0 时无效，请调高 temperature",
    "n {}: use 1 to {}, raise num_beams, or draw with temperature above 0": (
        "n {0}：应为 1 到 {1}；或增大 num_beams，或用大于 0 的 temperature 采样"
    ),
    "{} {}: the model has room for {} beside a source": "{0} {1}：除输入外，模型最多容纳 {2} 个 token",
    "{} {}: use {} to {} (tgt_length)": "{0} {1}：应为 {2} 到 {3}（tgt_length）",
    "{} {}: use {} to {}, or raise num_beams": "{0} {1}：应为 {2} 到 {3}，或增大 num_beams",
    "{} {}: it has no effect with {}: use False": "{0} {1}：{2} 时无效，请用 False",
    "{} {}: it has no effect with num_beams 1: raise num_beams": "{0} {1}：num_beams 为 1 时无效，请增大 num_beams",
    "{} {}: it has no effect with {}": "{0} {1}：{2} 时无效",
    "{} {}: has no effect with finished_rule unilm; leave it out": "{0} {1}：finished_rule 为 unilm 时无效，请去掉",
    "{} {}: use a number above {}; 1.0 is off": "{0} {1}：应大于 {2}（1.0 表示关闭）",
    "{} {}: use {} (off) or more, at most {}": "{0} {1}：应为 {2}（关闭）到 {3}",
    "{} {}: use {} or more, at most {}": "{0} {1}：应为 {2} 到 {3}",
    "{} {}: search_rules fairseq takes the best candidates; leave it out": (
        "{0} {1}：search_rules 为 fairseq 时只取最优候选，请去掉"
    ),
    "{} {}: use {} (off) or more": "{0} {1}：应不小于 {2}（{2} 表示关闭）",
    "{} {}: use {} (off) to {}": "{0} {1}：应为 {2}（关闭）到 {3}",
    "{} {}: use {} to {}": "{0} {1}：应为 {2} 到 {3}",
    "{} {}: use {} or more": "{0} {1}：应不小于 {2}",
    "tgt_length {}: no room for {} tokens (min_tgt_length, or the longest allowed output) and eop after the {} that "
    "are given": (
        "tgt_length {0}：已给定 {2} 个 token，之后放不下 {1} 个 token（min_tgt_length 或最长的允许输出）和结束符"
    ),
    # -- records
    "{}: no column is recognised as the source nor as the answer; {} (columns: {})": (
        "{0}：没有认出输入和答案字段（现有字段：{2}）；请用模板的字段名，"
        "或在启动服务器时用 --source_column、--answer_column 指定"
    ),
    "{}: no column is recognised as the source; {} (columns: {})": (
        "{0}：没有认出输入字段（现有字段：{2}）；请用模板的字段名，或在启动服务器时用 --source_column 指定"
    ),
    "{}: no column is recognised as the answer; {} (columns: {})": (
        "{0}：没有认出答案字段（现有字段：{2}）；请用模板的字段名，或在启动服务器时用 --answer_column 指定"
    ),
    "record {}, field {}: {*}": "第 {0} 条，字段 {1}：{2}",
    "record {}: {*}": "第 {0} 条：{1}",
    "{}, field {}: {*}": "{0}，字段 {1}：{2}",
    # -- what is wrong with a field of a record, or with a text
    "empty": "为空",
    "has no token: the tokenizer drops all of it": "没有 token：分词器会丢弃全部内容",
    "no {} in it; exactly one is expected": "没有 {0}，应恰好有一个",
    "more than one {} in it; exactly one is expected": "有多个 {0}，应恰好有一个",
    "no field {} (fields: {})": "没有字段 {0}（现有字段：{1}）",
    "{} where text is expected": "这里是 {0}，应为字符串",
    "{} where text or a whole number is expected": "这里是 {0}，应为字符串或整数",
    "{} where a whole number is expected": "这里是 {0}，应为整数",
    "{} where a label is expected": "这里是 {0}，应为标签",
    'a list of texts is expected; a table\'s cell has it as ["…", "…"]': "应为字符串列表",
    "a list of objects is expected": "应为对象列表",
    "an object is expected": "应为对象",
    "a list of options for each question is expected": "每个问题都应有一个选项列表",
    "a text, or a list of texts, is expected": "应为字符串或字符串列表",
    "text: holds half of a surrogate pair; write it as UTF-8, or escape whole characters": (
        "text：含有半个代理对；请用 UTF-8 编码，或对完整字符转义"
    ),
    "holds half of a surrogate pair; escape whole characters": "含有半个代理对；请对完整字符转义",
    "holds the command token {}; take it out of the text": "含有控制标记 {0}，请从文本中去掉",
    "{} tokens that may not be cut do not fit into src_length {}": (
        "不可截断的部分有 {0} 个 token，超过 src_length {1}"
    ),
    "{} tokens with its frame leave no room for the passage in src_length {}": (
        "连同模板共 {0} 个 token，src_length {1} 放不下段落"
    ),
    "{} tokens do not fit into src_length {}, shorten the text: {}": (
        "{0} 个 token，超过 src_length {1}，请缩短文本：{2}"
    ),
    "{} blanks do not fit into src_length {}: {}": "{0} 个空白标记，超过 src_length {1}：{2}",
    "{} tokens do not fit into src_length {}; {}": "{0} 个 token，超过 src_length {1}",
    "does not fit into src_length {}": "超过 src_length {0}",
    "a candidate does not fit into src_length {}": "有候选项超过 src_length {0}",
    "one candidate, which a classification head has nothing to compare with; give candidates": (
        "只有一个候选项，分类头无从比较；请给出 candidates"
    ),
    "one choice; two at least to choose from": "只有一个选项，至少要有两个",
    "{}: the tokenizer has no pieces for it": "{0}：分词器无法编码",
    "{}: {} tokens, and tgt_length {} has no room for them": "{0}：共 {1} 个 token，超过 tgt_length {2}",
    "{}: is the same to the model as {}": "{0}：对模型来说与 {1} 相同",
    "{}: is none of the choices": "{0}：不在选项之中",
    "{}: is none of the choices, and no number of one": "{0}：不是选项，也不是选项的编号",
}
