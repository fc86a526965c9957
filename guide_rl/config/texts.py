"""Prompts and templates that recipes name or start from; the paper's, word for word."""

SYSTEM_PROMPTS = {
    "none": "",
    "thought_solution": (
        "Your task is to follow a systematic, thorough reasoning process before providing the final solution. "
        "This involves analyzing, summarizing, exploring, reassessing, and refining your thought process through "
        "multiple iterations. Structure your response into two sections: Thought and Solution. In the Thought "
        'section, present your reasoning using the format: "<think>\n {thoughts} </think>\n". Each thought should '
        "include detailed analysis, brainstorming, verification, and refinement of ideas. After "
        '"</think>\n," in the Solution section, provide the final, logical, and accurate answer, clearly derived '
        "from the exploration in the Thought section. If applicable, include the answer in \\boxed{} for "
        "closed-form results like multiple choices or mathematical solutions."
    ),
}
"""Named system prompts; `thought_solution` is the paper's (appendix I.2)."""

CHAT_TEMPLATES = {
    "think_answer": (
        "A conversation between user and assistant. The user asks a question, and the assistant solves it. "
        "The assistant first thinks about the reasoning process in the mind and then provides the user with the "
        "answer. The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> "
        "tags, respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>. "
        "User: {{ messages[-1]['content'] }} Assistant:"
    ),
}
"""Named Jinja chat templates for base models; `think_answer` is the paper's (appendix H)."""

GUIDED_TEMPLATE = (
    "{question}\nA hint to the problem is provided below:\n[HINT_START]\n{guidance}\n[HINT_END]\n"
    "Consider the hint but start your solution from scratch and do not directly reference the hint "
    '(e.g. avoid phrases like "using the hint").'
)
"""The paper's layout of a guided prompt (appendix G, table 7)."""

TEACHER_PROMPT = """You are an expert math tutor with years of experience helping students understand difficult concepts without solving problems for them. Your task is to analyze a math problem and its reference solution, then create a series of helpful hints that guide the student toward discovering the solution independently.
[question]: {question}
[reference_answer]: {reference_answer}
When creating hints, follow these principles:
- Start with conceptual hints that point to relevant mathematical principles
- Progress to more specific strategic hints about approach
- Offer guidance on potential roadblocks without revealing key steps
- Never provide direct calculations or formulas that would bypass the student’s own reasoning
- Include 3-5 hints in ascending order of directness
[guidance]:
1. [Conceptual hint focusing on relevant mathematical principles]
2. [Strategic hint about approach without revealing steps]
3. [Hint addressing common misconception or roadblock]
4. [More direct hint if needed]
5. [Final hint that guides toward the solution method without providing it]"""
"""What the teacher is asked (the paper's, appendix G)."""
