"""The plots' titles and labels in Chinese. Names of figures, which users search for, stay as they are."""

BY_LENGTH = " by length of the source"  # behind the name of a figure

CHINESE = {
    "Loss": "损失",
    "nats per token": "nat/token",
    "training, with label smoothing": "训练（含标签平滑）",
    "dev records": "开发集",
    "Loss of the held-out texts, by objective": "留出文本的损失（按训练目标）",
    "nats per predicted token": "nat/预测 token",
    "Losses": "各项损失",
    "generator": "生成器",
    "discriminator, weight left out": "判别器（未乘权重）",
    "generator again": "生成器（二次前向）",
    "The discriminator's judgements": "判别器的判断",
    "share": "比例",
    "right of replaced tokens": "被替换 token 的判断正确率",
    "right of original tokens": "原始 token 的判断正确率",
    "replaced tokens": "被替换 token 的比例",
    "Scores of the dev records": "开发集得分",
    "percent": "百分比",
    "Learning rate": "学习率",
    "learning rate": "学习率",
    "Gradient norm, before clipping": "梯度范数（裁剪前）",
    "gradient norm": "梯度范数",
    "Speed": "速度",
    "tokens per second": "token/秒",
    "Memory": "内存",
    "of the process": "进程内存",
    "of the GPU, largest": "GPU 显存峰值",
    "optimizer step": "优化步数",
    "Length of the source": "输入长度",
    "Length of the generated text": "生成文本长度",
    "characters, without white space": "字符数（不含空白）",
    "records": "数据条数",
    "source": "输入",
    "reference": "参考文本",
    "generated": "生成",
    "Scores by length of the source": "不同输入长度的得分",
    "characters of the source (records)": "输入字符数（数据条数）",
    "Scores by data set": "各数据集得分",
    "data set": "数据集",
}


def chinese_of(label: str) -> str:
    """Returns a label in Chinese; empty if it is the same, as names of figures and of data sets are."""
    if label not in CHINESE and label.endswith(BY_LENGTH):
        return f"{label.removesuffix(BY_LENGTH)}（按输入长度）"
    return CHINESE.get(label, "")
